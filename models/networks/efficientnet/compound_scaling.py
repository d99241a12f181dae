"""Compound scaling: the cost constraint, the grid of coefficients, and rounding of channels and repeats.

Source: paper sections 3.2, 3.3 and 5; rounding from the official code (efficientnet_model.py,
``round_filters`` and ``round_repeats``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Coefficients:
    """Scaling of one network relative to B0: depth alpha^phi, width beta^phi, resolution gamma^phi."""

    alpha: float
    beta: float
    gamma: float

    @property
    def cost(self) -> float:
        """FLOPS relative to B0 at phi = 1: alpha * beta^2 * gamma^2."""
        return self.alpha * self.beta**2 * self.gamma**2


PAPER = Coefficients(alpha=1.2, beta=1.1, gamma=1.15)  # section 4, step 1; cost 1.92027


def grid(
    alpha: Sequence[float], beta: Sequence[float], gamma: Sequence[float], budget: float, tolerance: float
) -> list[Coefficients]:
    """Lists the coefficients whose cost is within ``tolerance`` of ``budget``, alpha outermost.

    Args:
        alpha: Depth multipliers, all >= 1.
        beta: Width multipliers, all >= 1.
        gamma: Resolution multipliers, all >= 1.
        budget: Target of alpha * beta^2 * gamma^2; 2.0 in the paper.
        tolerance: Largest absolute deviation from ``budget``.

    Source: paper section 3.3, step 1.
    """
    points = [Coefficients(a, b, g) for a, b, g in product(alpha, beta, gamma)]
    # 1e-9: rounding in the last bit must not exclude a point such as 1.2 * 1.1**2.
    return [p for p in points if abs(p.cost - budget) <= tolerance + 1e-9]


def round_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Scales a channel count and rounds it to a multiple of ``divisor``, never down by more than 10 %.

    Source: official ``round_filters``; a width of 1.0 is the identity there too.
    """
    if width == 1.0:
        return channels
    scaled = channels * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    if rounded < 0.9 * scaled:
        rounded += divisor
    return rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scales a repeat count and rounds it up. Source: official ``round_repeats``."""
    return math.ceil(depth * repeats)
