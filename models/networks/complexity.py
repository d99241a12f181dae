"""Exact parameter and multiply-add counts, from an architecture's numbers or by running a network on no images.

Importing this module does not import torch, which would take most of the time of ``effnet plan``.

Multiply-adds are those of convolutions and linear layers, squeeze-and-excitation included; batch norm, activations,
pooling, gates and biases are not counted. BN running statistics are not parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.networks.efficientnet.variants import Architecture, Stage, squeezed

if TYPE_CHECKING:
    from torch import nn


def count_model(network: nn.Module, resolution: int) -> tuple[int, int]:
    """Counts ``(parameters, multiply-adds)`` of one image of ``resolution`` x ``resolution`` pixels.

    The network is not modified; it may live on any device, the meta device included.

    Source: reference counts in tests/unit/models/networks/efficientnet/test_network.py, and torch.utils.flop_counter,
    which gives twice as many.
    """
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    uncounted = {functional.batch_norm, functional.hardtanh, functional.relu, functional.silu}

    class Counter(TorchFunctionMode):
        """Leaves out layers that are not counted and keep the shape, which would take most of the time."""

        multiply_adds = 0

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in uncounted:
                return args[0]
            result = function(*args, **(kwargs or {}))
            if function in (functional.conv2d, functional.linear):  # each output is a product with a row of weights
                self.multiply_adds += math.prod(result.shape[1:]) * args[1][0].numel()
            return result

    params = sum(p.numel() for p in network.parameters())
    # A batch without images needs shapes only: the weights are memory that is never touched, so a B7 takes none. The
    # meta device would do as well, but its first convolution imports torch's compiler and sympy for three seconds.
    weights = {name: torch.empty(t.shape, dtype=t.dtype) for name, t in network.state_dict().items()}
    was_training = network.training
    network.eval()
    counter = Counter()
    try:
        with torch.no_grad(), counter:
            torch.func.functional_call(network, weights, (torch.empty(0, 3, resolution, resolution),))
    finally:
        network.train(was_training)
    return params, counter.multiply_adds


@dataclass
class _Tally:
    """Running counts, and the side in pixels of the next layer's input."""

    side: int
    params: int = 0
    multiply_adds: int = 0

    def add_conv_norm(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        """Counts a convolution without bias, followed by batch norm."""
        self.side = math.ceil(self.side / stride)
        weights = channels_in // groups * channels_out * kernel**2
        self.params += weights + 2 * channels_out
        self.multiply_adds += weights * self.side**2

    def add_linear(self, channels_in: int, channels_out: int) -> None:
        """Counts a linear layer, or a 1 x 1 convolution of one pixel, with bias."""
        self.params += (channels_in + 1) * channels_out
        self.multiply_adds += channels_in * channels_out


def count_architecture(arch: Architecture, num_classes: int) -> tuple[int, int]:
    """Computes the ``(parameters, multiply-adds)`` that ``count_model`` would give, by arithmetic without torch."""
    tally = _Tally(arch.resolution)
    tally.add_conv_norm(3, arch.stem, 3, 2)
    channels = arch.stem
    for stage in arch.stages:
        for repeat in range(stage.repeats):
            _count_block(tally, stage, channels, stage.stride if repeat == 0 else 1)
            channels = stage.channels
    tally.add_conv_norm(channels, arch.head, 1)
    tally.add_linear(arch.head, num_classes)
    return tally.params, tally.multiply_adds


def _count_block(tally: _Tally, stage: Stage, channels: int, stride: int) -> None:
    """Counts a ``blocks.MBConv`` or ``blocks.FusedMBConv``."""
    inner = channels * stage.expand_ratio
    if stage.fused:
        tally.add_conv_norm(channels, inner, stage.kernel, stride)
    else:
        if stage.expand_ratio != 1:
            tally.add_conv_norm(channels, inner, 1)
        tally.add_conv_norm(inner, inner, stage.kernel, stride, inner)
    if stage.se_ratio:
        width = squeezed(channels, stage.se_ratio)
        tally.add_linear(inner, width)
        tally.add_linear(width, inner)
    tally.add_conv_norm(inner, stage.channels, 1)
