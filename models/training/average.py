"""Exponential moving average of weights and batch-norm statistics; it is what gets evaluated.

Source: official main.py (``ExponentialMovingAverage(decay, num_updates=global_step)``, restored with the
BN moving mean and variance included).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def averaged_tensors(network: nn.Module) -> dict[str, Tensor]:
    """All floating tensors of the state: parameters and BN running statistics, by name."""
    return {name: t for name, t in network.state_dict().items() if t.is_floating_point()}


class WeightAverage:
    """Keeps ``average = d * average + (1 - d) * value`` with ``d = min(decay, (1 + t) / (10 + t))``.

    The ramp lets a short job catch up: with a plain 0.9999 the first 10,000 steps are mostly the start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._values = averaged_tensors(network)  # live views: state_dict shares storage with the network
        self.tensors = {name: t.detach().clone() for name, t in self._values.items()}
        self._value_list = list(self._values.values())
        self._average_list = list(self.tensors.values())

    def decay_at(self, step: int) -> float:
        """Decay of the update after ``step`` finished steps (counted from 1)."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the network's present values; two multi-tensor kernels."""
        torch._foreach_lerp_(self._average_list, self._value_list, 1 - self.decay_at(step))

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Writes the average into ``network`` (a second one, kept for evaluation)."""
        targets = averaged_tensors(network)
        torch._foreach_copy_([targets[name] for name in self.tensors], self._average_list)
