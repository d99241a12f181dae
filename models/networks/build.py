"""Builds any supported network by name.

torch is imported by the functions that build: the family is counted without it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from conf import schema
from conf.text import did_you_mean
from infra.errors import ConfigError
from models.networks.complexity import count_architecture, count_model
from models.networks.efficientnet import block_strings
from models.networks.efficientnet.variants import B0_STAGES, LITE, VARIANTS, Architecture, architecture, lite

if TYPE_CHECKING:
    from models.networks.efficientnet.network import Network

_COUNTS: dict[tuple[str, int], tuple[int, int, int]] = {}  # a report, its plan and its jobs request the same counts


def network_names() -> tuple[str, ...]:
    """All names that ``schema.Model`` may have: the EfficientNet family and the baselines of the related work."""
    from models.networks.baselines import BASELINES

    return (*VARIANTS, *BASELINES)


def check_names(setting: str, names: Sequence[str]) -> None:
    """Refuses unknown networks, all of them, and one that is named twice.

    Raises:
        ConfigError: The message says the nearest name of each, or all names where none is near.
    """
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigError(f"{setting} names {', '.join(map(repr, repeated))} more than once")
    known = network_names()
    hints = {name: did_you_mean(name, known) for name in names if name not in known}
    if hints:
        listed = ", ".join(f"{name!r} ({hint})" if hint else repr(name) for name, hint in hints.items())
        choices = "" if all(hints.values()) else f"; choices: {', '.join(known)}"
        raise ConfigError(f"{setting}: unknown network {listed}{choices}")


def resolve_architecture(model: schema.Model) -> Architecture:
    """Looks up a variant of the family and scales it.

    Raises:
        ConfigError: unknown network (the message suggests the closest name), malformed blocks, or too small an image.
    """
    if model.name not in VARIANTS:
        raise ConfigError(
            f"no network named {model.name!r}; {did_you_mean(model.name, network_names())} "
            f"({', '.join(VARIANTS)}, and the baselines in models/networks/baselines.py)"
        )
    stages = block_strings.decode(model.blocks) if model.blocks else B0_STAGES
    arch = architecture(VARIANTS[model.name], model.width, model.depth, model.resolution, stages)
    if model.name in LITE:
        arch = lite(arch, stages)
    strides = 2 * math.prod(stage.stride for stage in arch.stages)
    _check_resolution(model, VARIANTS[model.name].resolution, strides // 2 + 1)
    return dataclasses.replace(
        arch, padding=model.padding, bn_epsilon=model.bn_epsilon, preprocessing=model.preprocessing
    )


def _check_resolution(model: schema.Model, base: int, smallest: int) -> None:
    """Refuses images so small that the last stride-2 layer would receive a single pixel."""
    side = round(base * model.resolution)
    if side < smallest:
        raise ConfigError(
            f"{side} px are too few for {model.name}; use at least {smallest} px: "
            f"model.resolution >= {math.ceil(smallest / base * 1e4) / 1e4}"
        )


def build_model(model: schema.Model, num_classes: int, *, dropout: float | None = None, device: str = "cpu") -> Network:
    """Builds a network with the configured width, depth and resolution multipliers.

    Args:
        model: Network name and its multipliers.
        num_classes: Width of the classifier.
        dropout: Dropout rate that replaces the network's default, if given.
        device: Device on which the weights are created; ``meta`` suffices for counting.

    Raises:
        ConfigError: unknown network, missing library, an option the network does not support, or too small an image.
    """
    import torch

    from models.networks import baselines
    from models.networks.efficientnet.network import EfficientNet

    if model.name in baselines.BASELINES:
        for key in ("blocks", "padding", "bn_epsilon", "preprocessing"):
            if getattr(model, key) != getattr(schema.Model(), key):
                raise ConfigError(f"model.{key} applies to EfficientNet only; {model.name} does not support it")
        baseline = baselines.BASELINES[model.name]
        _check_resolution(model, baseline.resolution, baseline.smallest)
        with _undrawn() if device == "meta" else nullcontext(), torch.device(device):
            return baselines.build(model, num_classes, dropout)
    arch = resolve_architecture(model)
    if dropout is not None:
        arch = dataclasses.replace(arch, dropout=dropout)
    with torch.device(device):
        return EfficientNet(arch, num_classes, model.survival_prob)


def _undrawn() -> AbstractContextManager[Any]:
    """Returns a context in which no weight is drawn: on the meta device that imports torch's compiler, for seconds."""
    import torch
    from torch.overrides import TorchFunctionMode

    drawing: set[Any] = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.nn.init.normal_, torch.nn.init.uniform_}

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in drawing:
                return args[0] if args else kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    return Undrawn()


def compute_cost(model: schema.Model, num_classes: int) -> tuple[int, int, int]:
    """Returns ``(parameters, multiply_adds, resolution)`` of a configured network.

    Arithmetic for the EfficientNet family; a baseline is built on the meta device and run without images, once.
    """
    if model.name in VARIANTS:
        arch = resolve_architecture(model)
        return (*count_architecture(arch, num_classes), arch.resolution)
    key = (repr(model), num_classes)
    if key not in _COUNTS:
        network = build_model(model, num_classes, device="meta")
        _COUNTS[key] = (*count_model(network, network.resolution), network.resolution)
    return _COUNTS[key]


def feature_params(model: schema.Model) -> int:
    """Counts the parameters outside the classifier, whose parameters are proportional to the number of classes."""
    return 2 * compute_cost(model, 1)[0] - compute_cost(model, 2)[0]
