"""One door to every network, by name."""

from __future__ import annotations

import dataclasses
import difflib
import math

import torch
from torch import nn

from conf import schema
from infra.errors import ConfigError
from models.efficientnet import block_strings
from models.efficientnet.complexity import count
from models.efficientnet.network import EfficientNet
from models.efficientnet.variants import B0_STAGES, LITE, VARIANTS, Architecture, architecture, lite


def network_names() -> tuple[str, ...]:
    """All names that ``build_network`` takes."""
    return tuple(VARIANTS)


def resolve(model: schema.Model) -> Architecture:
    """Looks the variant up and scales it.

    Raises:
        ConfigError: no such network (the message names the nearest), an image too small for it, or blocks that are no
            table of ours.
    """
    if model.name not in VARIANTS:
        near = difflib.get_close_matches(model.name, VARIANTS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"no network named {model.name!r}; did you mean {near!r}? ({', '.join(VARIANTS)})")
    table = block_strings.decode(model.blocks) if model.blocks else B0_STAGES
    arch = architecture(VARIANTS[model.name], model.width, model.depth, model.resolution, table)
    if model.name in LITE:
        arch = lite(arch, table)
    strides = 2 * math.prod(stage.stride for stage in arch.stages)
    smallest = strides // 2 + 1
    if arch.resolution < smallest:  # the last layer with stride 2 would get a single pixel and have nothing to do
        least = smallest / VARIANTS[model.name].resolution
        raise ConfigError(
            f"{arch.resolution} px are too few for {model.name}, which makes them {strides} times smaller; take "
            f"{smallest} px at least: model.resolution >= {math.ceil(least * 1e4) / 1e4}"
        )
    return dataclasses.replace(
        arch, padding=model.padding, bn_epsilon=model.bn_epsilon, preprocessing=model.preprocessing
    )


def build_network(name: str, num_classes: int = 1000, *, device: str = "cpu") -> nn.Module:
    """Builds a network at the paper's size, freshly initialised from torch's global generator.

    Args:
        name: as in ``network_names()``, e.g. ``efficientnet_b3``.
        num_classes: width of the classifier.
        device: where the weights are made; ``meta`` for counting only.
    """
    return build_scaled(schema.Model(name=name), num_classes, device=device)


def build_scaled(
    model: schema.Model, num_classes: int, *, dropout: float | None = None, device: str = "cpu"
) -> EfficientNet:
    """Builds a network with the configuration's multipliers of width, depth and resolution.

    Args:
        model: which variant, and its multipliers.
        num_classes: width of the classifier.
        dropout: replaces the variant's own rate where given.
        device: where the weights are made.
    """
    arch = resolve(model)
    if dropout is not None:
        arch = dataclasses.replace(arch, dropout=dropout)
    with torch.device(device):
        return EfficientNet(arch, num_classes, model.survival_prob)


def counted(model: schema.Model, num_classes: int) -> tuple[int, int, int]:
    """``(parameters, multiply_adds, resolution)`` of a configured network; about a second for B7."""
    network = build_scaled(model, num_classes, device="meta")
    return *count(network, network.resolution), network.resolution
