"""A grid search: what is refused before it costs anything, the choice worked out by hand, the family it leads to."""

import dataclasses
import json
import math
from collections.abc import Sequence

import made_results
import numpy as np
import pytest
from numpy.typing import NDArray

from conf.compose import compose
from conf.schema import Model, Search
from infra.errors import ConfigError, DivergedError
from models.experiments.grid_search import ScreenedGrid, choose, family, grid_points, screen, select_trials
from models.networks.efficientnet.compound_scaling import PAPER, Coefficients
from models.results import SearchResult, TrainResult, Trial

POINTS = [Coefficients(1.0, 1.2, 1.15), Coefficients(1.2, 1.1, 1.15), Coefficients(1.4, 1.2, 1.0)]


def result(minival_top1: float, multiply_adds: int = 100, n: int = 500, job: str = "j") -> TrainResult:
    return made_results.trained(
        minival_top1=minival_top1, multiply_adds=multiply_adds, n_minival=n, resolution=28, job=job
    )


def chosen(*results: TrainResult) -> SearchResult:
    return choose(Search(), screened(len(results)), [[result] for result in results], {})


def answered(*correct: NDArray[np.bool_], costs: Sequence[int] = (100, 100, 100), seeds: int = 1) -> SearchResult:
    """The search among points whose networks classified these images correctly; the seeds of a point in turn."""
    results = [
        result(100 * float(bits.mean()), costs[number // seeds], len(bits), f"job {number}")
        for number, bits in enumerate(correct)
    ]
    points = [results[i : i + seeds] for i in range(0, len(results), seeds)]
    answers = {f"job {number}": bits for number, bits in enumerate(correct)}
    return choose(Search(seeds=seeds), screened(len(points)), points, answers)


def images(first: int, last: int, n: int = 500) -> NDArray[np.bool_]:
    """True for the images from ``first`` to before ``last``."""
    return (np.arange(n) >= first) & (np.arange(n) < last)


def screened(trials: int) -> ScreenedGrid:
    return ScreenedGrid(tuple(POINTS[:trials]), (), multiply_adds=50, classes=10)


def point(trial: Trial) -> tuple[float, float, float]:
    return trial.alpha, trial.beta, trial.gamma


def test_the_best_has_the_highest_minival_accuracy() -> None:
    searched = chosen(result(50.0), result(70.0), result(60.0))
    assert point(searched.best) == (1.2, 1.1, 1.15)
    assert searched.tied == ()


def test_trials_within_one_standard_error_of_the_best_are_ties() -> None:
    # sqrt(0.8 * 0.2 / 400) = 2 percentage points
    searched = chosen(result(77.9, n=400), result(80.0, n=400), result(78.1, n=400))
    assert point(searched.best) == (1.2, 1.1, 1.15)
    assert [point(t) for t in searched.tied] == [(1.4, 1.2, 1.0)]


def test_a_trial_exactly_one_standard_error_below_is_a_tie() -> None:
    error = 100 * math.sqrt(0.8 * 0.2 / 500)
    assert [point(t) for t in chosen(result(80.0 - error), result(80.0)).tied] == [(1.0, 1.2, 1.15)]
    assert chosen(result(80.0 - error - 1e-9), result(80.0)).tied == ()


def test_of_equal_accuracies_the_cheaper_is_best_and_the_other_a_tie() -> None:
    searched = chosen(result(80.0, multiply_adds=300), result(80.0, multiply_adds=200), result(10.0, multiply_adds=1))
    assert point(searched.best) == (1.2, 1.1, 1.15)
    assert [point(t) for t in searched.tied] == [(1.0, 1.2, 1.15)]


def test_a_perfect_accuracy_has_no_standard_error_and_ties_only_with_its_equal() -> None:
    searched = chosen(result(100.0, multiply_adds=2), result(99.99), result(100.0, multiply_adds=1))
    assert point(searched.best) == (1.4, 1.2, 1.0)
    assert [point(t) for t in searched.tied] == [(1.0, 1.2, 1.15)]


def test_trials_stay_in_grid_order_with_all_their_numbers() -> None:
    searched = chosen(result(50.0), result(70.0), result(60.0))
    assert [point(t) for t in searched.trials] == [(p.alpha, p.beta, p.gamma) for p in POINTS]
    assert searched.trials[1] == Trial(
        alpha=1.2,
        beta=1.1,
        gamma=1.15,
        product=pytest.approx(1.92027),
        params=7,
        multiply_adds=100,
        resolution=28,
        minival_top1=70.0,
        n_minival=500,
        standard_error=pytest.approx(100 * math.sqrt(0.7 * 0.3 / 500)),
        counted_cost=2.0,
        mlflow_run="run",
        seed_top1=(70.0,),
        equal_cost_top1=70.0,
    )
    assert (searched.budget, searched.tolerance, searched.counted_tolerance) == (2.0, 0.1, 0.6)


def test_the_verdict_says_in_words_whether_the_best_is_told_apart() -> None:
    assert chosen(result(50.0), result(70.0)).verdict == (
        "alpha 1.2, beta 1.1, gamma 1.15 is best (70.00 ± 2.05 % of 500 minival images), and every other trial is "
        "distinguished from it"
    )
    assert chosen(result(50.0), result(70.0), result(69.0)).verdict == (
        "alpha 1.2, beta 1.1, gamma 1.15 leads (70.00 ± 2.05 % of 500 minival images) but is not distinguished from "
        "1 of the other 2 trials: alpha 1.4, beta 1.2, gamma 1 (within one standard error)"
    )
    assert "is the only trial" in chosen(result(50.0)).verdict


def test_a_trial_that_diverged_does_not_end_the_search_and_is_named_with_its_reason() -> None:
    searched = select_trials(
        Search(), screened(3), [[result(50.0)], [DivergedError("the loss is not finite\n  | more")], [result(60.0)]], {}
    )
    assert point(searched.best) == (1.4, 1.2, 1.0)
    assert [point(t) for t in searched.trials] == [(1.0, 1.2, 1.15), (1.4, 1.2, 1.0)]
    assert searched.failed == ("trial 1.2 1.1 1.15: the loss is not finite",)


def test_a_search_without_one_good_trial_ends_with_the_first_error() -> None:
    with pytest.raises(DivergedError, match="first"):
        select_trials(Search(), screened(2), [[DivergedError("first")], [DivergedError("second")]], {})


def test_a_point_whose_network_counts_too_much_is_refused_with_the_numbers() -> None:
    # 1.4 x depth: B0's repeats 1 2 2 3 3 4 1 become 2 3 3 5 5 6 2; the count of the wish is 1.95.
    wanted = Search(alpha=[1.0, 1.4], beta=[1.0], gamma=[1.18, 1.4], counted_tolerance=0.5)
    points = grid_points(wanted)
    assert [(p.alpha, p.gamma) for p in points] == [(1.0, 1.4), (1.4, 1.18)]
    screened = screen(wanted, Model(), points, 1000)
    assert screened.multiply_adds == 385_814_752
    assert screened.points == (Coefficients(1.0, 1.0, 1.4),)
    assert [(r.alpha, r.beta, r.gamma) for r in screened.refused] == [(1.4, 1.0, 1.18)]
    cost = screened.refused[0].multiply_adds / 385_814_752
    assert cost > 2.5
    assert screened.refused[0].reason == (
        f"counts {cost:.2f} times the baseline's multiply-adds after rounding, not 2 ± 0.5"
    )
    json.dumps([dataclasses.asdict(point) for point in screened.refused])


def test_the_paper_s_own_point_is_kept_at_the_paper_s_size_and_on_the_laptop() -> None:
    for profile in ("paper", "laptop"):
        config = compose([f"profile={profile}"])
        screened = screen(config.search, config.model, grid_points(config.search), 10)
        assert PAPER in screened.points
        assert len(screened.points) + len(screened.refused) == len(grid_points(config.search))
        assert len(screened.points) >= 5


def test_a_point_that_rounds_to_another_point_s_network_is_refused_as_its_twin() -> None:
    # Every repeat is at most 4, so a depth of 1.1 and one of 1.2 round up to the same network.
    wanted = Search(alpha=[1.1, 1.2], beta=[1.0], gamma=[1.3], tolerance=0.2, counted_tolerance=1.0)
    screened = screen(wanted, Model(), grid_points(wanted), 1000)
    assert screened.points == (Coefficients(1.1, 1.0, 1.3),)
    assert [r.reason for r in screened.refused] == ["rounds to the same network as alpha 1.1, beta 1, gamma 1.3"]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Search(alpha=[1.0], tolerance=0.0), "search.tolerance or the lists search.alpha, search.beta, search.gamma"),
        (
            Search(alpha=[1.2], beta=[1.1], gamma=[1.15], counted_tolerance=0.1),
            "all 1 points .* count too far .* nearest by 0.57.; raise search.counted_tolerance, which is 0.1",
        ),
    ],
)
def test_a_grid_without_a_feasible_point_is_one_clear_line(wanted: Search, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        screen(wanted, Model(), grid_points(wanted), 1000)
    assert "\n" not in str(caught.value)


def test_the_paper_s_coefficients_give_another_family_than_the_paper_s_table() -> None:
    rows = family(Model(), PAPER, 1000)
    assert [row.phi for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    counts = [(row.hand_set.name, row.hand_set.params, row.hand_set.multiply_adds) for row in rows]
    assert counts[0] == ("efficientnet_b1", 7_794_184, 686_802_832)
    assert counts[6] == ("efficientnet_b7", 66_347_960, 37_745_884_192)
    assert [row.hand_set.resolution_px for row in rows] == [240, 260, 300, 380, 456, 528, 600]
    assert [row.derived.resolution_px for row in rows] == [round(224 * 1.15**phi) for phi in range(1, 8)]
    assert rows[1].derived.depth == pytest.approx(1.44)
    assert rows[1].derived.width == pytest.approx(1.21)
    for row in rows:
        assert row.derived.multiply_adds != row.hand_set.multiply_adds


def test_trials_of_earlier_runs_are_counted() -> None:
    assert chosen(result(1.0), dataclasses.replace(result(2.0), reused=True), result(3.0)).found == 1


def test_points_and_results_must_pair_up() -> None:
    with pytest.raises(ValueError, match="shorter"):
        choose(Search(), screened(3), [[result(1.0)]], {})


@pytest.mark.slow
def test_trials_are_compared_on_the_same_images_by_mcnemar_s_test() -> None:
    """A lead of 2 points is within one standard error, 2.05, of independent images. Here it is 10 images to none."""
    searched = answered(images(0, 350), images(0, 340))
    assert point(searched.best) == (1.0, 1.2, 1.15)
    behind = searched.trials[1].behind
    assert behind is not None
    assert (behind.value, behind.n, behind.seeds) == (pytest.approx(2.0), 500, 1)
    assert behind.p == pytest.approx(2 / 2**10)
    assert searched.tied == ()
    assert searched.trials[0].behind is None


def test_a_lead_in_which_many_images_differ_is_a_tie() -> None:
    searched = answered(images(0, 350), images(150, 495))  # 150 to 145, 70.0 and 69.0 %
    assert [point(trial) for trial in searched.tied] == [(1.2, 1.1, 1.15)]
    assert (
        "not distinguished from 1 of the other 1 trial: alpha 1.2, beta 1.1, gamma 1.15 (+1.00 points, "
        in searched.verdict
    )
    assert searched.verdict.endswith("p 0.82)")


def test_more_comparisons_need_a_smaller_p() -> None:
    """6 images to none: p 0.031 is enough for one comparison, not for two."""
    assert answered(images(0, 350), images(0, 344)).tied == ()
    searched = answered(images(0, 350), images(0, 344), images(0, 344))
    assert [point(trial) for trial in searched.tied] == [(1.2, 1.1, 1.15), (1.4, 1.2, 1.0)]


def test_the_best_is_selected_on_the_same_images_so_all_pairs_count_and_not_its_own_comparisons() -> None:
    """9 images to 1: p 0.021 is below 5 % over the two comparisons with the best, not over the three pairs."""
    searched = answered(images(0, 350), images(9, 351), images(0, 200))
    assert searched.trials[1].behind is not None
    assert searched.trials[1].behind.p == pytest.approx(22 / 1024)
    assert [point(trial) for trial in searched.tied] == [(1.2, 1.1, 1.15)]
    assert "not distinguished from 1 of the other 2 trials at 5 % over all 3 pairs: alpha" in searched.verdict


def test_a_point_with_seeds_has_their_mean_and_its_tests_their_spread() -> None:
    ours = (images(0, 350), images(0, 300))
    searched = answered(*ours, images(0, 340), images(0, 290), seeds=2)
    assert (searched.seeds, searched.best.seed_top1, searched.best.minival_top1) == (2, (70.0, 60.0), 65.0)
    assert searched.trials[1].behind is not None
    assert searched.trials[1].behind.seeds == 2
    assert "65.00 ± 2.13 % of 500 minival images, mean of 2 seeds" in searched.verdict
    wide = answered(*ours, images(0, 290), images(0, 340), seeds=2).trials[1].behind  # leads of 12 and of -8 points
    assert wide is not None
    assert wide.value == pytest.approx(2.0)
    assert wide.p > 0.8


def test_a_point_of_which_one_seed_failed_is_not_compared() -> None:
    results = [[result(50.0), result(51.0)], [result(90.0), DivergedError("the loss is not finite")]]
    searched = select_trials(Search(seeds=2), screened(2), results, {})
    assert [point(trial) for trial in searched.trials] == [(1.0, 1.2, 1.15)]
    assert searched.failed == ("trial 1.2 1.1 1.15: the loss is not finite",)


def test_the_best_at_equal_cost_is_named_beside_the_best() -> None:
    """70 % at 2.4 times the baseline's cost, and 69.6 % at 1.6 times: 69.11 and 70.70 % at twice, by hand."""
    searched = answered(images(0, 350), images(0, 348), costs=(120, 80))
    assert point(searched.best) == (1.0, 1.2, 1.15)
    assert [trial.counted_cost for trial in searched.trials] == [2.4, 1.6]
    assert [round(trial.equal_cost_top1 or 0.0, 2) for trial in searched.trials] == [69.11, 70.7]
    assert searched.best_at_equal_cost is not None
    assert point(searched.best_at_equal_cost) == (1.2, 1.1, 1.15)
    assert searched.equal_cost_verdict.startswith(
        "at equal counted cost, accuracy × (cost / 2)^-0.07, alpha 1.2, beta 1.1, gamma 1.15 leads "
        "alpha 1, beta 1.2, gamma 1.15 by 70.70 % against 69.11 % (+1.58 points, "
    )
    without = choose(Search(exponent=0.0), screened(2), [[result(70.0, 120)], [result(69.6, 80)]], {})
    assert without.best_at_equal_cost == without.best
    assert without.equal_cost_verdict.endswith("by 70.00 % against 69.60 %; the same images were not compared")


def test_a_lead_at_equal_cost_that_may_be_chance_is_a_tie() -> None:
    searched = answered(images(0, 350), images(150, 495), costs=(100, 101))
    assert searched.equal_cost_verdict.endswith(", a tie)")
