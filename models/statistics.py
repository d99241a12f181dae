"""Accuracies in percent, with their standard errors, from exact counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ONE_SIDED_95 = 1.6449  # quantile of the normal distribution
TWO_SIDED_95 = 1.9600


@dataclass(frozen=True)
class Estimate:
    """A fraction in percent, its standard error in points, and the number of images it is based on."""

    value: float
    standard_error: float
    n: int


def standard_error(percent: float | None, n: float | None) -> float | None:
    """Returns the binomial standard error in points, sqrt(p (100 - p) / n); None if a number is missing or invalid."""
    if percent is None or n is None or n <= 0 or not 0 <= percent <= 100:
        return None
    return math.sqrt(percent * (100 - percent) / n)


def interval_95(percent: float, n: int) -> float:
    """Returns half the width of the 95 % interval in points, 1.96 binomial standard errors; n > 0."""
    return TWO_SIDED_95 * math.sqrt(percent * (100 - percent) / n)


def share(correct: int, n: int) -> Estimate:
    """Returns the fraction of ``n`` images; the standard error is binomial, sqrt(p (1 - p) / n).

    Raises:
        ValueError: There are no images, or more correct images than images.
    """
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} of {n} images is not a fraction")
    p = correct / n
    return Estimate(100 * p, 100 * math.sqrt(p * (1 - p) / n), n)


def mean_per_class(correct: Sequence[int], total: Sequence[int]) -> Estimate:
    """Returns the mean of the per-class accuracies, each class with equal weight regardless of its number of images.

    Classes are independent samples, so the variance of their mean is the sum of their variances divided by the square
    of their number: the standard error is sqrt(sum of p_c (1 - p_c) / n_c) / C. Classes without images are excluded.

    Source: the protocols of FGVC Aircraft, Oxford-IIIT Pets and Flowers-102 (as in SimCLR, appendix B.8).

    Args:
        correct: Correctly classified images per class.
        total: Images per class.

    Raises:
        ValueError: No class has images, or a class has more correct images than images.
    """
    accuracies = [share(hits, n) for hits, n in zip(correct, total, strict=True) if n or hits]
    if not accuracies:
        raise ValueError("no class has images")
    error = math.sqrt(sum(accuracy.standard_error**2 for accuracy in accuracies)) / len(accuracies)
    return Estimate(sum(accuracy.value for accuracy in accuracies) / len(accuracies), error, sum(total))


def estimate(metric: str, correct: Sequence[int], total: Sequence[int]) -> Estimate:
    """Computes the data set's metric, ``top-1`` or ``mean per class``."""
    return mean_per_class(correct, total) if metric == "mean per class" else share(sum(correct), sum(total))


@dataclass(frozen=True)
class Difference:
    """The lead of one network over another on the same images, in percentage points."""

    value: float
    lower: float  # one-sided 95 % confidence bounds
    upper: float
    n: int


def paired_difference(gained: int, lost: int, n: int) -> Difference:
    """Returns the difference of two accuracies on the same ``n`` images and its one-sided 95 % confidence bounds.

    Images that both networks classify correctly, or both wrongly, carry no information, so the bounds are tighter than
    those of two independent samples. They are Bonett and Price's, which add one image to either side; without it a
    bound for few images would be far too optimistic (2 to 0 of 120 would lie above -0.3).

    Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", J. Educ. Behav. Stat. 37 (2012); recommended by Fagerland et al., Stat. Med. 33 (2014).

    Args:
        gained: Images that only the first network classifies correctly.
        lost: Images that only the second network classifies correctly.
        n: Number of images.

    Raises:
        ValueError: There are no images, or fewer than those on which the networks differ.
    """
    if n == 0 or gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"{gained} and {lost} of {n} images is not a valid comparison")
    only_first, only_second = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    center = only_first - only_second
    error = math.sqrt((only_first + only_second - center**2) / (n + 2))
    lower, upper = center - ONE_SIDED_95 * error, center + ONE_SIDED_95 * error
    return Difference(100 * (gained - lost) / n, 100 * lower, 100 * upper, n)
