"""One door to every network, by name."""

from __future__ import annotations

import dataclasses
import difflib
import math

import torch

from conf import schema
from infra.errors import ConfigError
from models.networks import baselines
from models.networks.baselines import BASELINES
from models.networks.complexity import count_architecture, count_model
from models.networks.efficientnet import block_strings
from models.networks.efficientnet.network import EfficientNet, Network
from models.networks.efficientnet.variants import B0_STAGES, LITE, VARIANTS, Architecture, architecture, lite

_COUNTS: dict[tuple[str, int], tuple[int, int, int]] = {}  # a report, its plan and its jobs ask for the same ones


def network_names() -> tuple[str, ...]:
    """All names that ``build_network`` takes: the family's and the related work's."""
    return (*VARIANTS, *BASELINES)


def resolve_architecture(model: schema.Model) -> Architecture:
    """Looks a variant of the family up and scales it.

    Raises:
        ConfigError: no such network (the message names the nearest), blocks that are none, or an image too small.
    """
    if model.name not in VARIANTS:
        near = difflib.get_close_matches(model.name, network_names(), n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"no network named {model.name!r}; did you mean {near!r}? "
            f"({', '.join(VARIANTS)}, and those of models/networks/baselines.py)"
        )
    table = block_strings.decode(model.blocks) if model.blocks else B0_STAGES
    arch = architecture(VARIANTS[model.name], model.width, model.depth, model.resolution, table)
    if model.name in LITE:
        arch = lite(arch, table)
    strides = 2 * math.prod(stage.stride for stage in arch.stages)
    _require_side(model, VARIANTS[model.name].resolution, strides // 2 + 1)
    return dataclasses.replace(
        arch, padding=model.padding, bn_epsilon=model.bn_epsilon, preprocessing=model.preprocessing
    )


def _require_side(model: schema.Model, own: int, smallest: int) -> None:
    """With fewer pixels the last layer with stride 2 would get a single one and have nothing to do."""
    side = round(own * model.resolution)
    if side < smallest:
        raise ConfigError(
            f"{side} px are too few for {model.name}; take {smallest} px at least: "
            f"model.resolution >= {math.ceil(smallest / own * 1e4) / 1e4}"
        )


def build_network(name: str, num_classes: int = 1000, *, device: str = "cpu") -> Network:
    """Builds a network at the paper's size, freshly initialised from torch's global generator.

    Args:
        name: as in ``network_names()``, e.g. ``efficientnet_b3``.
        num_classes: width of the classifier.
        device: where the weights are made; ``meta`` for counting only.
    """
    return build_model(schema.Model(name=name), num_classes, device=device)


def build_model(model: schema.Model, num_classes: int, *, dropout: float | None = None, device: str = "cpu") -> Network:
    """Builds a network with the configuration's multipliers of width, depth and resolution.

    Args:
        model: which network, and its multipliers.
        num_classes: width of the classifier.
        dropout: replaces the network's own rate where given.
        device: where the weights are made.

    Raises:
        ConfigError: no such network, its library is not installed, blocks that it has none of, or too small an image.
    """
    if model.name in BASELINES:
        for key in ("blocks", "padding", "bn_epsilon", "preprocessing"):
            if getattr(model, key) != getattr(schema.Model(), key):
                raise ConfigError(f"model.{key} is EfficientNet's; {model.name} has its own")
        rival = BASELINES[model.name]
        _require_side(model, rival.resolution, rival.smallest)
        with torch.device(device):
            return baselines.build(model, num_classes, dropout)
    arch = resolve_architecture(model)
    if dropout is not None:
        arch = dataclasses.replace(arch, dropout=dropout)
    with torch.device(device):
        return EfficientNet(arch, num_classes, model.survival_prob)


def compute_cost(model: schema.Model, num_classes: int) -> tuple[int, int, int]:
    """``(parameters, multiply_adds, resolution)`` of a configured network.

    At once for the family; a network of the related work is built on the meta device and run, the first time.
    """
    if model.name not in BASELINES:
        arch = resolve_architecture(model)
        return (*count_architecture(arch, num_classes), arch.resolution)
    key = (repr(model), num_classes)
    if key not in _COUNTS:
        network = build_model(model, num_classes, device="meta")
        _COUNTS[key] = (*count_model(network, network.resolution), network.resolution)
    return _COUNTS[key]


def feature_params(model: schema.Model) -> int:
    """Parameters of all but the classifier, whose own are proportional to the classes."""
    return 2 * compute_cost(model, 1)[0] - compute_cost(model, 2)[0]
