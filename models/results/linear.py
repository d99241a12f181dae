"""Frozen features of networks under logistic regression."""

from __future__ import annotations

from dataclasses import dataclass

from models.statistics import PairedTest


@dataclass(frozen=True, kw_only=True)
class LinearRow:
    """Accuracy of logistic regression on the features of one network."""

    network: str
    weights: str  # ImageNet | random
    params: int
    multiply_adds: int  # at the resolution of the evaluation
    top1: float  # percent of n; the mean over the random weights
    seed_top1: tuple[float, ...]  # one for ImageNet's weights, one for each of the random ones
    n: int


@dataclass(frozen=True, kw_only=True)
class LinearComparison:
    """Lead of the features of one network over those of another, on the same images of val."""

    first: str
    second: str
    lead: PairedTest


@dataclass(frozen=True, kw_only=True)
class LinearResult:
    """A linear evaluation: ImageNet's weights against random ones, and larger networks against the first."""

    data: str = ""
    n: int | None = None
    resolution: int | None = None
    majority: float | None = None  # percent of val in its most frequent class
    rows: tuple[LinearRow, ...] = ()
    comparisons: tuple[LinearComparison, ...] = ()
    verdicts: tuple[str, ...] = ()  # one for each comparison
    reused: int = 0  # answers of earlier runs
    missing: tuple[str, ...] = ()
    command: str = ""
