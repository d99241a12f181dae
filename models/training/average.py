"""Exponential moving average of weights and batch-norm statistics; it is what gets evaluated.

Source: official main.py (``ExponentialMovingAverage(decay, num_updates=global_step)``, restored with the
BN moving mean and variance included).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def decay_at(decay: float, step: int) -> float:
    """Decay of the update after ``step`` finished steps (counted from 1): ``min(decay, (1 + t) / (10 + t))``.

    The ramp lets a short job catch up: with a plain 0.9999 the first 10,000 steps are mostly the start.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update(average: Tensor, values: Tensor, decay: float, step: int, go: Any = 1.0) -> None:
    """``average = d * average + (1 - d) * values``, in place.

    Args:
        average: flat, as ``values``.
        values: parameters and BN statistics.
        decay: the cap of d.
        step: finished steps, this one included.
        go: 1, or a scalar tensor that is 0 where nothing may change.
    """
    average.lerp_(values, (1 - decay_at(decay, step)) * go)
