"""Accuracies and their standard errors against cases worked by hand, and against simulation."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from matrix import with_slow_rest
from numpy.typing import NDArray

from models.statistics import (
    Estimate,
    calibration_error,
    compare_folds,
    compare_paired,
    estimate,
    mcnemar,
    mean_per_class,
    paired_difference,
    share,
    standard_error,
)


def test_a_share_has_the_standard_error_of_a_binomial() -> None:
    assert share(80, 100) == Estimate(80.0, pytest.approx(4.0), 100)  # sqrt(.8 * .2 / 100) = .04
    assert share(9, 10).standard_error == pytest.approx(100 * math.sqrt(0.09 / 10))


def test_every_class_weighs_the_same_however_many_images_it_has() -> None:
    # 1/2, 3/4 and 8/8: the mean is 3/4, where the share of all images is 12/14.
    estimated = mean_per_class([1, 3, 8], [2, 4, 8])
    assert (estimated.value, estimated.n) == (pytest.approx(75.0), 14)
    # Variances 1/4 / 2 = 1/8, 3/16 / 4 = 3/64, 0: their sum is 11/64, its root by three classes is the error.
    assert estimated.standard_error == pytest.approx(100 * math.sqrt(11 / 64) / 3)


def test_with_as_many_images_in_each_class_the_mean_is_the_share_and_its_error_is_not_larger() -> None:
    correct, total = [3, 9, 6], [10, 10, 10]
    mean, whole = mean_per_class(correct, total), share(18, 30)
    assert mean.value == pytest.approx(whole.value)
    assert mean.standard_error < whole.standard_error  # classes are strata: what differs between them is no noise


def test_a_class_without_images_does_not_count() -> None:
    assert mean_per_class([1, 0, 2], [2, 0, 2]) == mean_per_class([1, 2], [2, 2])


@pytest.mark.parametrize(
    "call",
    [
        lambda: share(0, 0),
        lambda: share(3, 2),
        lambda: mean_per_class([], []),
        lambda: mean_per_class([0], [0]),
        lambda: mean_per_class([1], [0]),
        lambda: mean_per_class([1, 2], [3]),
        lambda: paired_difference(0, 0, 0),
        lambda: paired_difference(3, 2, 4),
        lambda: paired_difference(-1, 2, 4),
    ],
)
def test_counts_that_make_no_sense_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):  # noqa: PT011 - each in its own words
        call()


def test_the_metric_s_name_chooses_the_estimate() -> None:
    counts = ([1, 3, 8], [2, 4, 8])
    assert estimate("mean per class", *counts) == mean_per_class(*counts)
    assert estimate("top-1", *counts) == share(12, 14)


def test_the_error_of_the_mean_is_the_spread_that_a_simulation_shows() -> None:
    rng = np.random.default_rng(0)
    p, total = np.array([0.9, 0.5, 0.7, 0.99]), np.array([5, 40, 12, 100])
    means = (rng.binomial(total, p, (200_000, 4)) / total).mean(axis=1)
    expected = mean_per_class([round(x * 1000) for x in p], [1000] * 4)  # the shares, at another size
    assert means.mean() * 100 == pytest.approx(expected.value, abs=0.05)
    stated = 100 * math.sqrt(sum(x * (1 - x) / n for x, n in zip(p, total, strict=True))) / 4
    assert means.std() * 100 == pytest.approx(stated, rel=0.01)


def test_the_calibration_error_is_the_one_worked_by_hand() -> None:
    # Of 15 bins: 0.95 and 0.98 are in the last, 0.5 and 0.51 in the eighth (0.467 to 0.533), 1/15 in the first.
    probabilities = np.array([0.95, 0.98, 0.5, 0.51, 1 / 15], np.float32)
    correct = np.array([True, False, True, True, False])
    # |1 - 1.93| + |2 - 1.01| + |0 - 1/15|, over 5 images
    assert calibration_error(probabilities, correct) == pytest.approx(100 * (0.93 + 0.99 + 1 / 15) / 5, abs=1e-4)


@pytest.mark.parametrize(("correct", "error"), [(True, 0.0), (False, 100.0)])
def test_certain_answers_are_calibrated_if_they_are_right(correct: bool, error: float) -> None:
    assert calibration_error(np.ones(7, np.float32), np.full(7, correct)) == error


def test_a_probability_on_the_edge_of_two_bins_is_in_the_lower_one() -> None:
    # 3/15 is exact in neither float; both images are in the bin (2/15, 3/15] and cancel.
    probabilities = np.array([0.2, 0.2], np.float64).astype(np.float32)
    assert calibration_error(probabilities, np.array([True, False])) == pytest.approx(30.0, abs=1e-4)


def test_a_paired_difference_is_the_one_worked_by_hand() -> None:
    estimated = paired_difference(10, 5, 100)
    # (10 - 5) / 100; the bound from 11/102 and 6/102: 0.04902 - 1.6449 sqrt((0.16667 - 0.00240) / 102)
    assert (estimated.value, estimated.n) == (5.0, 100)
    assert estimated.lower == pytest.approx(4.902 - 164.49 * math.sqrt((0.166667 - 0.002403) / 102), abs=1e-3)


def test_a_few_images_are_no_proof_and_the_same_share_of_many_is() -> None:
    assert paired_difference(2, 0, 120).lower < -0.3  # an exact sign test gives 1 in 4
    assert paired_difference(5, 0, 120).lower > 0  # 1 in 32
    assert paired_difference(12, 10, 100).lower < -0.3
    assert paired_difference(1200, 1000, 10000).lower > 0


@pytest.mark.parametrize(("n", "differ", "truth"), [(120, 0.1, 0.0), (1000, 0.05, -0.003), (1000, 0.05, 0.0)])
def test_the_bound_lies_above_the_true_difference_in_no_more_than_about_one_case_in_twenty(
    n: int, differ: float, truth: float
) -> None:
    rng = np.random.default_rng(0)
    gained, lost = (differ + truth) / 2, (differ - truth) / 2
    drawn = rng.multinomial(n, [gained, lost, 1 - gained - lost], 20_000)
    above = [paired_difference(int(a), int(b), n).lower > 100 * truth for a, b, _ in drawn]
    assert 0.03 < np.mean(above) < 0.055


@pytest.mark.parametrize(
    ("percent", "n", "expected"),
    [
        (50, 100, 5.0),
        (77.1, 50_000, 0.18791),
        (100, 10, 0.0),
        (None, 10, None),
        (50, None, None),
        (50, 0, None),
        (101, 10, None),
        (-1, 10, None),
    ],
)
def test_the_standard_error_is_binomial(percent: float | None, n: float | None, expected: float | None) -> None:
    error = standard_error(percent, n)
    assert error is None if expected is None else error == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 32),  # all five of five, or none
        (0, 5, 2 / 32),
        (1, 4, 2 * (1 + 5) / 32),
        (3, 3, 1.0),
    ],
)
def test_mcnemar_s_exact_test_counts_the_images_on_which_the_networks_differ(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_mcnemar_s_test_is_scipy_s(alternative: str) -> None:
    from scipy.stats import binomtest

    for gained, lost in itertools.product(range(12), range(12)):
        p = binomtest(gained, gained + lost, alternative=alternative).pvalue if gained + lost else 1
        assert mcnemar(gained, lost, alternative) == pytest.approx(p, rel=1e-12)


def answers(*rows: str) -> NDArray[np.bool_]:
    """``answers("1101")``: images of one seed that are correct."""
    return np.array([[digit == "1" for digit in row] for row in rows])


def test_a_paired_difference_of_one_seed_is_that_of_the_images() -> None:
    tested = compare_paired(answers("1111110000"), answers("0011100001"))
    assert (tested.value, tested.n, tested.seeds) == (pytest.approx(20.0), 10, 1)
    # differences 1 1 0 0 0 1 0 0 0 -1: mean 0.2, variance (3 * 0.64 + 6 * 0.04 + 1.44) / 9 = 0.4
    error = 100 * math.sqrt(0.4 / 10)
    assert tested.upper - tested.value == pytest.approx(2.2622 * error, rel=1e-4)  # Student's t with 9
    assert tested.value - tested.lower == pytest.approx(2.2622 * error, rel=1e-4)
    assert tested.p == pytest.approx(mcnemar(3, 1))


def test_the_variance_over_seeds_is_part_of_the_interval() -> None:
    """Two seeds that lead by 20 and by 0 points leave one degree of freedom: nothing can be concluded."""
    images = 10_000
    ours, theirs = np.zeros((2, 2, images), np.bool_)
    ours[0, : images // 5] = True
    tested = compare_paired(ours, theirs)
    # over images: 0.1 of the 0.2 that differ by one half; over seeds: (20, 0), variance 200, of the mean 100
    over_images, over_seeds = 100**2 * (0.2 * 0.25 - 0.01) / images, 100.0
    total = over_images + over_seeds
    critical = (1.96 * over_images + 12.706 * over_seeds) / total  # Student's t of 9,999 and of 1 degree of freedom
    assert tested.value == pytest.approx(10)
    assert tested.upper - tested.value == pytest.approx(critical * math.sqrt(total), rel=1e-3)
    assert tested.p == pytest.approx(0.5, abs=0.005)  # t of 1 degree of freedom exceeds 1 in size half of the time
    assert compare_paired(ours[:1], theirs[:1]).p < 1e-9


def test_factors_compare_at_equal_cost() -> None:
    same = answers("1100110011")
    tested = compare_paired(same, same, (1.0, 0.5))
    assert tested.value == pytest.approx(30.0)  # 60 % against 0.5 * 60 %
    assert tested.p < 0.05
    assert compare_paired(same, same).p == 1.0
    assert compare_paired(same, same).upper == 0.0


@pytest.mark.parametrize("theirs", [answers("111"), answers("1111", "1111")])
def test_answers_to_other_images_or_of_other_seeds_are_not_compared(theirs: NDArray[np.bool_]) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_paired(answers("1100"), theirs)


@pytest.mark.parametrize(("seeds", "images", "shift"), [(2, 400, 0.1), (2, 1000, 0.02), (3, 400, 0.02), (3, 400, 0.1)])
def test_of_equal_networks_one_in_twenty_seems_different(seeds: int, images: int, shift: float) -> None:
    """Simulated: networks that differ on images at random and, with seeds, by a random shift of a seed."""
    rng, different, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        hardness = rng.random(images)
        shifts = rng.normal(0, shift, (2, seeds, 1))
        ours, theirs = rng.random((2, seeds, images)) < hardness + shifts
        different += compare_paired(ours, theirs).p < 0.05
    assert different <= 0.05 * trials + 3 * math.sqrt(trials * 0.05 * 0.95)  # it is rather too careful


def test_a_single_fold_is_compared_as_seeds_on_the_same_images_are() -> None:
    ours, theirs = answers("110011", "111111"), answers("110000", "101010")
    assert compare_folds([ours], [theirs], 0.5) == compare_paired(ours, theirs)


@pytest.fixture
def student() -> Any:
    """Student's t distribution, imported here, since every process that collects imports this file."""
    from scipy.stats import t

    return t


def test_the_variance_over_folds_is_corrected_for_their_common_training_images(student: Any) -> None:
    """Three folds whose leads are 20, 10 and 0 points of 1,000 images each, by one network or the mean of two."""
    images = 1000
    theirs = [np.zeros((seeds, images), np.bool_) for seeds in (1, 2, 1)]
    ours = [part.copy() for part in theirs]
    ours[0][0, :200] = True
    ours[1][0, :200] = True  # the other seed leads on none
    tested = compare_folds(ours, theirs, 0.5)
    assert (tested.value, tested.n, tested.seeds, tested.folds) == (pytest.approx(10), 3 * images, 4, 3)
    within = 100**2 * (0.2 * 0.8 + 0.2 * 0.8 / 4) * images / (3 * images - 3) / (3 * images)
    between = 100 / 3 + 0.5 * (100 - 3 * within)  # 100 is the variance of (20, 10, 0)
    freedom = (within + between) ** 2 / (within**2 / (3 * images - 3) + between**2 / 2)
    half = student.ppf(0.975, freedom) * math.sqrt(within + between)
    assert tested.upper - tested.value == pytest.approx(half)
    assert tested.value - tested.lower == pytest.approx(half)
    assert tested.p == pytest.approx(2 * student.sf(10 / math.sqrt(within + between), freedom))


def test_of_two_folds_the_whole_variance_is_corrected(student: Any) -> None:
    ours = [np.arange(1000)[None] < count for count in (300, 100)]
    tested = compare_folds(ours, [np.zeros((1, 1000), np.bool_)] * 2, 1.0)
    within = 100**2 * (0.3 * 0.7 + 0.1 * 0.9) * 1000 / 1998 / 2000
    between = 200 / 2 + 200  # the variance of (30, 10) is 200
    freedom = (within + between) ** 2 / (within**2 / 1998 + between**2)
    assert tested.upper - tested.value == pytest.approx(student.ppf(0.975, freedom) * math.sqrt(within + between))


def test_folds_that_differ_no_more_than_sampled_images_are_not_corrected(student: Any) -> None:
    ours = [np.arange(1000)[None] < count for count in (200, 201, 199)]
    tested = compare_folds(ours, [np.zeros((1, 1000), np.bool_)] * 3, 0.5)
    within = 100**2 * (0.2 * 0.8 + 0.201 * 0.799 + 0.199 * 0.801) * 1000 / 2997 / 3000
    between = 0.01 / 3
    freedom = (within + between) ** 2 / (within**2 / 2997 + between**2 / 2)
    assert tested.upper - tested.value == pytest.approx(student.ppf(0.975, freedom) * math.sqrt(within + between))


def test_folds_of_other_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_folds([answers("1100"), answers("11")], [answers("1100"), answers("110")], 0.5)
    with pytest.raises(ValueError, match="shorter"):
        compare_folds([answers("1100"), answers("110")], [answers("1100")], 0.5)


def _train_and_test(
    x: NDArray[np.float64], y: NDArray[np.bool_], part: NDArray[np.int64], noise: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which images of a fold linear classifiers get right, ``[seeds, images]``, that were fitted on the others.

    ``noise`` is what the seeds add to the weights, ``[features, seeds]``.
    """
    train = np.setdiff1d(np.arange(len(y)), part)
    fitted = np.linalg.solve(x[train].T @ x[train], x[train].T @ (2.0 * y[train] - 1))  # least squares
    weights = fitted[:, None] + noise
    correct: NDArray[np.bool_] = ((x[part] @ weights > 0) == y[part, None]).T
    return correct


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "features", "folds", "seeds", "noise"),
    with_slow_rest(
        [
            (90, 20, 3, 3, 0.0),  # what the few images are decides most
            (600, 8, 3, 3, 0.2),  # the seed decides most
            (90, 8, 2, 2, 0.0),
            (90, 20, 5, 5, 0.0),
            (600, 8, 3, 9, 0.05),  # folds x seeds
            (600, 8, 2, 2, 1.0),
        ]
    ),
)
def test_of_equally_good_learners_at_most_one_in_twenty_seems_better_over_folds(
    n: int, features: int, folds: int, seeds: int, noise: float
) -> None:
    """Two learners that see different, equally informative features of each image: neither is better.

    Every repetition draws new images. Where one ignores that images share a trained network, up to one in seven
    comparisons seems significant.
    """
    rng, repetitions, different, naive = np.random.default_rng(0), 500, 0, 0
    for _ in range(repetitions):
        x = rng.normal(size=(n, 2 * features))
        y = x @ np.full(2 * features, 0.35) + rng.normal(size=n) > 0
        parts = np.array_split(np.arange(n), folds)
        ours, theirs = (
            [_train_and_test(half, y, part, noise * rng.normal(size=(features, seeds // folds))) for part in parts]
            for half in (x[:, :features], x[:, features:])
        )
        different += compare_folds(ours, theirs, 1 / (folds - 1)).p < 0.05
        together = (np.concatenate([rows[:1] for rows in each], axis=1) for each in (ours, theirs))
        naive += compare_paired(*together).p < 0.05
    assert different <= 0.05 * repetitions + 2 * math.sqrt(repetitions * 0.05 * 0.95)  # 7 % of 500
    if n == 90 or noise >= 0.2:
        assert naive > 0.07 * repetitions
