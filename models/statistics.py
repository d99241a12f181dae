"""Accuracies out of counts, with their standard errors: exact counts in, percent out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ONE_SIDED_95 = 1.6449  # quantile of the normal distribution


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


@dataclass(frozen=True)
class Difference:
    """By how many points one network is better than another on the same images."""

    value: float
    lower: float  # one-sided 95 % confidence bound
    n: int


def paired_difference(gained: int, lost: int, n: int) -> Difference:
    """Difference of two accuracies on the same ``n`` images, and the bound above which it lies with 95 %.

    Images that both networks get right, or both wrong, say nothing; so the bound is closer than that of two
    independent samples. It is Bonett and Price's: one image more is counted on either side, without which the bound
    of a few images would be far too bold (2 to 0 of 120 would lie above -0.3).

    Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", J. Educ. Behav. Stat. 37 (2012); recommended by Fagerland et al., Stat. Med. 33 (2014).

    Args:
        gained: images that only the first network gets right.
        lost: images that only the second one gets right.
        n: all images.

    Raises:
        ValueError: no images, or fewer than those on which the networks differ.
    """
    if n == 0 or gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"{gained} and {lost} of {n} images are no comparison")
    only_first, only_second = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    centre = only_first - only_second
    error = math.sqrt((only_first + only_second - centre**2) / (n + 2))
    return Difference(100 * (gained - lost) / n, 100 * (centre - ONE_SIDED_95 * error), n)
