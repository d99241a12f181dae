"""Exact parameter and multiply-add counts: of an architecture by its numbers, of any network on meta tensors.

Multiply-adds are those of convolutions and linear layers, squeeze-and-excitation included; batch norm, activations,
pooling, gates and biases are not counted. BN running statistics are no parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.networks.efficientnet.blocks import squeezed
from models.networks.efficientnet.variants import Architecture, Stage


def count_model(network: nn.Module, resolution: int) -> tuple[int, int]:
    """Counts ``(parameters, multiply-adds)`` of one image of ``resolution`` x ``resolution`` pixels.

    The network itself is not touched; it may live on any device, the meta device included.

    Source: facts of the family in tests/unit/models/networks/efficientnet/test_network.py; counter
    torch.utils.flop_counter, halved.
    """
    params = sum(p.numel() for p in network.parameters())
    # A meta twin of the weights: the count needs shapes alone, so a B7 costs no memory.
    weights = {name: torch.empty_like(t, device="meta") for name, t in network.state_dict().items()}
    was_training = network.training
    network.eval()
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            torch.func.functional_call(network, weights, (torch.empty(1, 3, resolution, resolution, device="meta"),))
    finally:
        network.train(was_training)
    return params, counter.get_total_flops() // 2


@dataclass
class _Tally:
    """What has been counted, and the side of the image that the next layer gets."""

    side: int
    params: int = 0
    multiply_adds: int = 0

    def normed(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        """A convolution without bias, and batch norm."""
        self.side = math.ceil(self.side / stride)
        weights = channels_in // groups * channels_out * kernel**2
        self.params += weights + 2 * channels_out
        self.multiply_adds += weights * self.side**2

    def linear(self, channels_in: int, channels_out: int) -> None:
        """A linear layer, or a 1 x 1 convolution of one pixel; with a bias."""
        self.params += (channels_in + 1) * channels_out
        self.multiply_adds += channels_in * channels_out


def count_architecture(arch: Architecture, num_classes: int) -> tuple[int, int]:
    """``(parameters, multiply-adds)`` as ``count`` of the network built from it; at once, and without torch."""
    tally = _Tally(arch.resolution)
    tally.normed(3, arch.stem, 3, 2)
    channels = arch.stem
    for stage in arch.stages:
        for repeat in range(stage.repeats):
            _block(tally, stage, channels, stage.stride if repeat == 0 else 1)
            channels = stage.channels
    tally.normed(channels, arch.head, 1)
    tally.linear(arch.head, num_classes)
    return tally.params, tally.multiply_adds


def _block(tally: _Tally, stage: Stage, channels: int, stride: int) -> None:
    """``blocks.MBConv`` or ``blocks.FusedMBConv``."""
    inner = channels * stage.expand_ratio
    if stage.fused:
        tally.normed(channels, inner, stage.kernel, stride)
    else:
        if stage.expand_ratio != 1:
            tally.normed(channels, inner, 1)
        tally.normed(inner, inner, stage.kernel, stride, inner)
    if stage.se_ratio:
        width = squeezed(channels, stage.se_ratio)
        tally.linear(inner, width)
        tally.linear(width, inner)
    tally.normed(inner, stage.channels, 1)
