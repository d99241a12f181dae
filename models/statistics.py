"""Accuracies out of counts, with their standard errors: exact counts in, percent out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A share in percent, its standard error in points, and the number of images behind it."""

    value: float
    standard_error: float
    n: int


def share(correct: int, n: int) -> Estimate:
    """Share of ``n`` images; the standard error is the binomial one, sqrt(p (1 - p) / n).

    Raises:
        ValueError: no images, or more correct ones than there are.
    """
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} of {n} images are no share")
    p = correct / n
    return Estimate(100 * p, 100 * math.sqrt(p * (1 - p) / n), n)


def mean_per_class(correct: Sequence[int], total: Sequence[int]) -> Estimate:
    """Mean of the classes' own accuracies, every class with the same weight however many images it has.

    Classes are independent samples, so the variance of their mean is the sum of their variances by the square of
    their number: the standard error is sqrt(sum of p_c (1 - p_c) / n_c) / C. Classes without images do not count.

    Source: the protocols of FGVC Aircraft, Oxford-IIIT Pets and Flowers-102 (as in SimCLR, appendix B.8).

    Args:
        correct: images of each class that are right.
        total: images of each class.

    Raises:
        ValueError: no class has images, or one has more correct ones than images.
    """
    shares = [share(right, n) for right, n in zip(correct, total, strict=True) if n or right]
    if not shares:
        raise ValueError("no class has images")
    error = math.sqrt(sum(each.standard_error**2 for each in shares)) / len(shares)
    return Estimate(sum(each.value for each in shares) / len(shares), error, sum(total))


def estimate(metric: str, correct: Sequence[int], total: Sequence[int]) -> Estimate:
    """The data set's metric: ``top-1``, or ``mean per class``."""
    return mean_per_class(correct, total) if metric == "mean per class" else share(sum(correct), sum(total))
