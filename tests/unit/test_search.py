"""The choice among the trials of a grid search, worked out by hand."""

import dataclasses
import math
from typing import Any

import pytest

from conf.compose import compose
from conf.schema import Search
from models.results import TrainResult
from models.scaling import PAPER, Coefficients
from tasks.search import summary, trial_overrides

POINTS = [Coefficients(1.0, 1.2, 1.15), Coefficients(1.2, 1.1, 1.15), Coefficients(1.4, 1.2, 1.0)]


def result(minival_top1: float, multiply_adds: int = 100, n: int = 500) -> TrainResult:
    return TrainResult(
        job="j", job_uri="file:///j", model="efficientnet_b0", params=7, multiply_adds=multiply_adds, resolution=28,
        classes=10, epochs=1, steps=2, top1=1.0, top5=2.0, n_val=9, minival_top1=minival_top1, n_minival=n,
        minutes=0.1, images_per_s=3.0, weights_uri="file:///w", weights_sha256="0", mlflow_run="run",
    )  # fmt: skip


def choose(*results: TrainResult) -> dict[str, Any]:
    return summary(Search(), POINTS[: len(results)], list(results))


def point(trial: dict[str, Any]) -> tuple[float, float, float]:
    return trial["alpha"], trial["beta"], trial["gamma"]


def test_the_best_has_the_highest_minival_accuracy() -> None:
    found = choose(result(50.0), result(70.0), result(60.0))
    assert point(found["best"]) == (1.2, 1.1, 1.15)
    assert found["tied"] == []


def test_trials_within_one_standard_error_of_the_best_are_ties() -> None:
    # sqrt(0.8 * 0.2 / 400) = 2 percentage points
    found = choose(result(77.9, n=400), result(80.0, n=400), result(78.1, n=400))
    assert point(found["best"]) == (1.2, 1.1, 1.15)
    assert [point(t) for t in found["tied"]] == [(1.4, 1.2, 1.0)]


def test_a_trial_exactly_one_standard_error_below_is_a_tie() -> None:
    error = 100 * math.sqrt(0.8 * 0.2 / 500)
    assert [point(t) for t in choose(result(80.0 - error), result(80.0))["tied"]] == [(1.0, 1.2, 1.15)]
    assert choose(result(80.0 - error - 1e-9), result(80.0))["tied"] == []


def test_of_equal_accuracies_the_cheaper_is_best_and_the_other_a_tie() -> None:
    found = choose(result(80.0, multiply_adds=300), result(80.0, multiply_adds=200), result(10.0, multiply_adds=1))
    assert point(found["best"]) == (1.2, 1.1, 1.15)
    assert [point(t) for t in found["tied"]] == [(1.0, 1.2, 1.15)]


def test_a_perfect_accuracy_has_no_standard_error_and_ties_only_with_its_equal() -> None:
    found = choose(result(100.0, multiply_adds=2), result(99.99), result(100.0, multiply_adds=1))
    assert point(found["best"]) == (1.4, 1.2, 1.0)
    assert [point(t) for t in found["tied"]] == [(1.0, 1.2, 1.15)]


def test_trials_stay_in_grid_order_with_all_their_numbers() -> None:
    found = choose(result(50.0), result(70.0), result(60.0))
    assert [point(t) for t in found["trials"]] == [(p.alpha, p.beta, p.gamma) for p in POINTS]
    assert found["trials"][1] == {
        "alpha": 1.2, "beta": 1.1, "gamma": 1.15, "product": pytest.approx(1.92027), "params": 7,
        "multiply_adds": 100, "resolution": 28, "minival_top1": 70.0, "n_minival": 500, "mlflow_run": "run",
    }  # fmt: skip
    assert (found["budget"], found["tolerance"]) == (2.0, 0.1)


def test_trials_of_earlier_runs_are_counted() -> None:
    assert choose(result(1.0), dataclasses.replace(result(2.0), reused=True), result(3.0))["found"] == 1


def test_points_and_results_must_pair_up() -> None:
    with pytest.raises(ValueError, match="shorter"):
        summary(Search(), POINTS, [result(1.0)])


@pytest.mark.parametrize("overrides", [["profile=laptop"], ["profile=paper"], ["search.recipe.dropout=0.25"]])
def test_a_trial_s_overrides_compose_to_the_scaled_network_and_the_search_s_recipe(overrides: list[str]) -> None:
    config = compose(overrides)
    trial = compose([*overrides, *trial_overrides(config, PAPER)])
    assert trial.recipe == config.search.recipe
    assert (trial.model.depth, trial.model.width, trial.model.resolution) == (
        config.model.depth * 1.2, config.model.width * 1.1, config.model.resolution * 1.15,
    )  # fmt: skip
    assert (trial.data, trial.model.name) == (config.data, config.model.name)
