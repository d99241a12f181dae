"""Exponential moving average of weights and batch-norm statistics, used for all evaluations.

Source: official main.py (``ExponentialMovingAverage(decay, num_updates=global_step)``, restored with the
BN moving mean and variance included).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def decay_at(decay: float, step: int) -> float:
    """Returns the decay after ``step`` finished steps (counted from 1): ``min(decay, (1 + t) / (10 + t))``.

    The ramp lets a short job catch up: with a constant 0.9999 the initial weights dominate the average for the first
    10,000 steps.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update(average: Tensor, values: Tensor, decay: float, step: int, go: Any = 1.0) -> None:
    """Updates ``average = d * average + (1 - d) * values`` in place.

    Args:
        average: Flat average, shaped like ``values``.
        values: Flat parameters and BN statistics.
        decay: Upper limit of d.
        step: Number of finished steps, including this one.
        go: 1, or a scalar tensor that is 0 if nothing may change.
    """
    average.lerp_(values, (1 - decay_at(decay, step)) * go)
