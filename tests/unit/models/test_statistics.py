"""Accuracies and their standard errors against cases worked by hand, and against simulation."""

import math

import numpy as np
import pytest

from models.statistics import Estimate, estimate, mean_per_class, paired_difference, share, standard_error


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
