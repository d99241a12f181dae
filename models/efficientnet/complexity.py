"""Exact parameter and multiply-add counts, on meta tensors: no memory, no data."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count(network: nn.Module, resolution: int) -> tuple[int, int]:
    """Counts ``(parameters, multiply-adds)`` of one image of ``resolution`` x ``resolution`` pixels.

    Multiply-adds are those of convolutions and linear layers, squeeze-and-excitation included; batch norm,
    activations, pooling, gates and biases are not counted. BN running statistics are no parameters.
    The network itself is not touched; it may live on any device, the meta device included.

    Source: facts of the family in tests/unit/test_efficientnet.py; counter torch.utils.flop_counter, halved.
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
