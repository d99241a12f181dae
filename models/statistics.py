"""Accuracies in percent, with their standard errors, from exact counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, variance
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ONE_SIDED_95 = 1.6449  # quantile of the normal distribution
TWO_SIDED_95 = 1.9600
CALIBRATION_BINS = 15
RESAMPLES = 500  # of a bootstrap
_LEAST_P = 1e-12  # of Cochran's test, which is solved for p numerically


@dataclass(frozen=True)
class Estimate:
    """A fraction in percent, its standard error in points, and the number of images it is based on."""

    value: float
    standard_error: float
    n: int


def two_sided_limit(probability: float) -> float:
    """Returns the standard errors that a normal deviation exceeds in size with this probability: 0.05 gives 1.96."""
    return NormalDist().inv_cdf(1 - probability / 2)


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


def weakest_classes(correct: Sequence[int], total: Sequence[int], count: int) -> list[int]:
    """Returns the ``count`` classes with the lowest accuracy, the lowest first, without classes that have no images."""
    shares = [(hits / n, label) for label, (hits, n) in enumerate(zip(correct, total, strict=True)) if n]
    return [label for _, label in sorted(shares)[:count]]


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


def calibration_error(probabilities: NDArray[np.float32], correct: NDArray[np.bool_]) -> float:
    """Returns the expected calibration error in percent: 0 if of the images with probability p a share p is correct.

    Images are binned by probability in ``CALIBRATION_BINS`` bins of equal width, ``(i / bins, (i + 1) / bins]``. The
    error is the mean over images of the distance between accuracy and mean probability of the bin.

    Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 2, with 15 bins.

    Args:
        probabilities: ``[images]``, probability of the most probable class.
        correct: ``[images]``, whether that class is the true one.
    """
    return _bin_error(*_bin(probabilities, correct))


def _bin(probabilities: NDArray[np.float32], correct: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Returns the bin of each image, and by how much its accuracy, 0 or 1, exceeds its probability."""
    import numpy as np

    bins = np.clip(np.ceil(probabilities.astype(np.float64) * CALIBRATION_BINS).astype(np.int64) - 1, 0, None)
    return bins, correct.astype(np.float64) - probabilities


def _bin_error(bins: NDArray[np.int64], excess: NDArray[Any]) -> float:
    import numpy as np

    return 100 * float(np.abs(np.bincount(bins, excess, CALIBRATION_BINS)).sum()) / len(bins)


def calibration_excess(
    ours: NDArray[np.float32],
    ours_correct: NDArray[np.bool_],
    theirs: NDArray[np.float32],
    theirs_correct: NDArray[np.bool_],
) -> tuple[float, float]:
    """Returns by how many points the first network's calibration error exceeds the second's, and its lower bound.

    The lower bound is the one-sided 95 % bound of the bootstrap over images, the same ones for both networks.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, percentile interval.

    Args:
        ours: ``[images]``, probabilities of the first network's most probable classes.
        ours_correct: ``[images]``, whether those are the true ones.
        theirs: The same of the second network.
        theirs_correct: The same of the second network.
    """
    import numpy as np

    rng, n = np.random.default_rng(0), len(ours)
    (bins, excess), (their_bins, their_excess) = _bin(ours, ours_correct), _bin(theirs, theirs_correct)

    def compare(ids: NDArray[np.int64]) -> float:
        return _bin_error(bins[ids], excess[ids]) - _bin_error(their_bins[ids], their_excess[ids])

    resampled = [compare(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    return compare(np.arange(n)), float(np.quantile(resampled, 0.05))


@dataclass(frozen=True)
class PairedTest:
    """The lead of one network over another on the same images, in points, with its two-sided 95 % interval.

    Attributes:
        p: Probability of a lead at least this far from 0, in either direction, between equal networks.
        n: Number of images.
        seeds: Number of trainings of each network.
        folds: Number of splits of the images that were trained and tested on.
    """

    value: float
    lower: float
    upper: float
    p: float
    n: int
    seeds: int
    folds: int = 1


def count_folds(leads: Iterable[PairedTest | None]) -> int:
    """The largest number of folds of any lead; 1 without leads."""
    return max((lead.folds for lead in leads if lead is not None), default=1)


def mcnemar(gained: int, lost: int, alternative: str = "two-sided") -> float:
    """Returns the p value of McNemar's exact test for two networks on the same images.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947); the exact form is the binomial test of the images on which the networks differ.

    Args:
        gained: Images that only the first network classifies correctly.
        lost: Images that only the second network classifies correctly.
        alternative: ``greater`` if the first network is better, ``less`` if it is worse, or ``two-sided``.
    """
    from scipy.special import bdtr  # the binomial distribution; scipy.stats takes half a second to import

    n = gained + lost
    if n == 0 or (alternative == "two-sided" and gained == lost):
        return 1.0
    if alternative == "two-sided":
        return min(1.0, 2 * float(bdtr(min(gained, lost), n, 0.5)))
    return float(bdtr(lost if alternative == "greater" else gained, n, 0.5))


def compare_paired(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], factors: tuple[float, float] = (1.0, 1.0)
) -> PairedTest:
    """Compares two networks by the images that they classify correctly, over one or more trainings of each.

    The variance of the difference is that over images, divided by their number, plus, with several seeds, that over
    seeds, divided by theirs. The part that depends on both is counted twice, so the interval is rather too wide. The
    critical value is Cochran's, between Student's t of each part: with Welch and Satterthwaite's degrees of freedom one
    in eight equal networks would differ over two seeds, and one in twelve over three. With one seed and equal factors p
    is that of McNemar's exact test.

    Source: Cochran, "Approximate significance levels of the Behrens-Fisher test", Biometrics 20 (1964).

    Args:
        ours: ``[seeds, images]``, True where the first network is correct.
        theirs: The same of the second network, for the same images and as many seeds.
        factors: Factors of the two accuracies, for a comparison at equal cost.

    Raises:
        ValueError: The arrays differ in shape, or there are fewer than two images.
    """
    _check_answers(ours, theirs)
    seeds, n = ours.shape
    differences = 100 * (factors[0] * ours.astype(float) - factors[1] * theirs.astype(float))
    value = float(differences.mean())
    parts = [(float(differences.mean(0).var(ddof=1)) / n, n - 1)]
    if seeds > 1:
        parts.append((float(differences.mean(1).var(ddof=1)) / seeds, seeds - 1))
    test = _test_by_cochran(value, parts, n, seeds)
    if seeds == 1 and factors[0] == factors[1]:
        return replace(test, p=mcnemar(int((ours & ~theirs).sum()), int((theirs & ~ours).sum())))
    return test


def compare_folds(
    ours: Sequence[NDArray[np.bool_]], theirs: Sequence[NDArray[np.bool_]], test_over_train: float
) -> PairedTest:
    """Compares two networks over several folds, each of which tests other images by networks trained on the others.

    The images of a fold share the trained networks, so the lead of a fold is one observation of what training yields,
    and the training sets of folds overlap, so these observations are correlated. The variance of the mean lead is that
    over images, divided by their number, plus that over folds, divided by theirs, plus Nadeau and Bengio's correction:
    test / train times what the variance over folds exceeds that of sampled images, which no two folds share. The
    variance of sampled images is counted twice, so the interval is rather too wide. Two folds leave one degree of
    freedom, too few for a subtraction: there the correction is of the whole variance over folds. Degrees of freedom
    are Welch and Satterthwaite's. A single fold is compared by ``compare_paired``.

    Source: Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003), section 3.

    Args:
        ours: For each fold ``[seeds, images]``, True where the first network is correct.
        theirs: The same of the second network, for the same images and as many seeds.
        test_over_train: Test images of a fold over its training images.

    Raises:
        ValueError: The arrays differ in number or shape, or a fold has fewer than two images.
    """
    if len(ours) == len(theirs) == 1:
        return compare_paired(ours[0], theirs[0])
    for pair in zip(ours, theirs, strict=True):
        _check_answers(*pair)
    leads = [100 * (one.mean(0) - other.mean(0)) for one, other in zip(ours, theirs, strict=True)]
    n, folds = sum(len(lead) for lead in leads), len(leads)
    value = sum(float(lead.sum()) for lead in leads) / n
    within = sum(float(((lead - lead.mean()) ** 2).sum()) for lead in leads) / (n - folds)
    between = variance(float(lead.mean()) for lead in leads)
    excess = between if folds == 2 else max(0.0, between - within * folds / n)
    parts = [(within / n, n - folds), (between / folds + test_over_train * excess, folds - 1)]
    return replace(_test_by_satterthwaite(value, parts, n, sum(len(one) for one in ours)), folds=folds)


def _check_answers(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> None:
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.shape[1] < 2 or not len(ours):
        raise ValueError(f"answers of shapes {ours.shape} and {theirs.shape} cannot be compared")


def _test_by_cochran(value: float, parts: Sequence[tuple[float, int]], n: int, seeds: int) -> PairedTest:
    """Tests a lead whose variance is the sum of parts with their degrees of freedom, by their mean critical value."""
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    total = sum(part for part, _ in parts)
    if total == 0:
        return PairedTest(value, value, value, float(value == 0), n, seeds)

    if len(parts) == 1:  # Student's t itself
        return _test_by_satterthwaite(value, parts, n, seeds)

    def critical(p: float) -> float:
        return sum(part / total * float(-stdtrit(free, p / 2)) for part, free in parts)

    error = math.sqrt(total)
    score, half = abs(value) / error, critical(0.05) * error
    p = float(brentq(lambda p: critical(p) - score, _LEAST_P, 1.0)) if critical(_LEAST_P) > score else _LEAST_P
    return PairedTest(value, value - half, value + half, p, n, seeds)


def _test_by_satterthwaite(value: float, parts: Sequence[tuple[float, int]], n: int, seeds: int) -> PairedTest:
    """As ``_test_by_cochran``, by Student's t with Welch and Satterthwaite's degrees of freedom."""
    from scipy.special import stdtr, stdtrit

    total = sum(part for part, _ in parts)
    if total == 0:
        return PairedTest(value, value, value, float(value == 0), n, seeds)
    freedom, error = total**2 / sum(part**2 / free for part, free in parts), math.sqrt(total)
    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(value) / error))
    return PairedTest(value, value - half, value + half, p, n, seeds)
