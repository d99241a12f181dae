"""Scaling at equal counted cost: the multipliers, the comparisons on the same images, and the verdict in words."""

from __future__ import annotations

from dataclasses import replace

import made_results
import numpy as np
import pytest
from matrix import with_slow_rest
from numpy.typing import NDArray

from conf.compose import OverrideError, compose
from conf.schema import Config, Model, Point, Scaling
from infra.errors import DivergedError
from models.experiments.equal_cost import compare_points, match_points, raise_to
from models.experiments.scaling_study import network_of, summarize
from models.networks.build import compute_cost
from models.results import ScalingComparison, ShardResult, TrainResult
from models.statistics import compare_folds, compare_paired

SHARDS = ShardResult("digits", "file:///m", "0", 10, 800, 100, 1000, 5, reused=True)
PROFILES = {"laptop": (["profile=laptop"], 10), "paper": (["profile=paper", "data.path=x", "transfer.path=x"], 1000)}


def relative_cost(model: Model, point: Point, classes: int) -> float:
    baseline = compute_cost(network_of(model, Point(point.network)), classes)[1]
    return compute_cost(network_of(model, point), classes)[1] / baseline


@pytest.mark.parametrize("profile", with_slow_rest(PROFILES))
def test_every_way_to_scale_counts_the_same_within_five_percent(profile: str) -> None:
    overrides, classes = PROFILES[profile]
    config = compose([*overrides, "scaling=equal_cost"])
    points = match_points(config.model, config.scaling, classes)
    assert [point.dimension for point in points] == ["baseline", "depth", "width", "resolution", "compound"]
    costs = [relative_cost(config.model, point, classes) for point in points]
    assert costs[0] == 1.0
    assert costs[1:] == pytest.approx([4.0] * 4, rel=0.05)


def test_the_study_compares_ways_to_scale_that_count_within_eight_percent_and_three_sizes() -> None:
    config = compose(["profile=study"])
    points = match_points(config.model, config.scaling, 2)
    costs = {
        point.dimension: relative_cost(config.model, point, 2) for point in points if point.dimension != "baseline"
    }
    assert costs == pytest.approx(dict.fromkeys(("depth", "width", "resolution", "compound"), 3.0), rel=0.08)
    sizes = [point.network for point in points if point.dimension == "baseline"]
    assert sizes == ["efficientnet_b0", "efficientnet_b2", "efficientnet_b4"]


def test_a_single_dimension_stays_single_and_compound_keeps_its_proportions() -> None:
    scaling = Scaling([Point("efficientnet_b0", "width", width=2.0)], equal_cost=3.0)
    (width,) = match_points(Model(), scaling, 1000)
    assert (width.depth, width.resolution) == (1.0, 1.0)
    point = Point("efficientnet_b0", "compound", width=1.2, depth=1.4, resolution=1.3)
    squared = raise_to(point, 2.0)
    assert (squared.width, squared.depth, squared.resolution) == pytest.approx((1.44, 1.96, 1.69))


def test_the_nearest_step_is_taken_where_no_network_counts_the_same() -> None:
    """Depth adds whole blocks. Its neighbours on both sides are further from the cost than the one that is taken."""
    config = compose(["profile=laptop", "scaling=equal_cost", "scaling.equal_cost=2.5"])
    (depth,) = [p for p in match_points(config.model, config.scaling, 10) if p.dimension == "depth"]
    taken = abs(relative_cost(config.model, depth, 10) - 2.5)
    assert taken > 0
    for other in np.arange(1.0, 12.0, 0.05):
        point = Point("efficientnet_b0", "depth", depth=float(other))
        assert abs(relative_cost(config.model, point, 10) - 2.5) >= taken - 1e-9


def test_without_a_cost_the_multipliers_are_those_of_the_points() -> None:
    config = compose(["scaling=table3"])
    assert match_points(config.model, config.scaling, 10) == config.scaling.points


@pytest.mark.parametrize(("setting", "message"), [("equal_cost=0.5", "must be > 1"), ("seeds=0", "must be > 0")])
def test_settings_without_sense_are_refused(setting: str, message: str) -> None:
    with pytest.raises(OverrideError, match=message):
        compose(["scaling=equal_cost", f"scaling.{setting}"])


def images(first: int, last: int, n: int = 1000) -> NDArray[np.bool_]:
    return (np.arange(n) >= first) & (np.arange(n) < last)


def trained(job: str, correct: NDArray[np.bool_]) -> TrainResult:
    return made_results.trained(job=job, top1=100 * float(correct.mean()), n_val=len(correct))


def compared(
    config: Config, *correct: list[NDArray[np.bool_]], shards: list[ShardResult] | None = None
) -> tuple[tuple[ScalingComparison, ...], tuple[str, ...]]:
    """The comparisons of a study whose points classified these images correctly, seed by seed."""
    answers = {f"{point}/{seed}": bits for point, seeds in enumerate(correct) for seed, bits in enumerate(seeds)}
    results: list[list[TrainResult | BaseException]] = [
        [trained(f"{point}/{seed}", bits) for seed, bits in enumerate(seeds)] for point, seeds in enumerate(correct)
    ]
    shards = shards or [SHARDS] * len(correct[0])
    points = summarize(config, shards, results, [None] * len(results)).points
    return compare_points(config.scaling, points, results, answers, shards)


def study(*overrides: str) -> Config:
    config = compose(["profile=laptop", "scaling=equal_cost", *overrides])
    config.scaling.points = match_points(config.model, config.scaling, 10)
    return config


@pytest.mark.slow
def test_the_verdict_says_that_compound_scaling_wins_ties_and_loses() -> None:
    baseline, compound = images(0, 800), images(0, 900)
    depth, width, resolution = images(0, 850), images(40, 935), images(0, 920)  # 50 fewer; 40 to 35; 20 more
    found, verdicts = compared(study(), [baseline], [depth], [width], [resolution], [compound])
    assert [(c.dimension, c.single_top1, c.compound_top1) for c in found] == [
        ("depth", 85.0, 90.0),
        ("width", 89.5, 90.0),
        ("resolution", 92.0, 90.0),
    ]
    assert all(c.cost_ratio == pytest.approx(1, abs=0.05) for c in found)
    leads = [c.lead for c in found if c.lead is not None]
    assert [lead.value for lead in leads] == pytest.approx([5.0, 0.5, -2.0])
    (verdict,) = verdicts
    assert verdict.startswith("efficientnet_b0: compound beats depth (+5.00 points, +3.65 to +6.35, p < 0.001); ")
    assert "; compound is not distinguished from width (+0.50 points, -1.20 to +2.20, p 0.64); " in verdict
    assert verdict.endswith("; compound loses to resolution (-2.00 points, -2.87 to -1.13, p < 0.001)")


@pytest.mark.slow
def test_seeds_that_disagree_leave_a_tie() -> None:
    ways = ([images(0, 800)] * 3, [images(0, 900), images(0, 860), images(0, 880)])
    config = study()
    found, (verdict,) = compared(
        config, ways[0], ways[0], ways[0], ways[1], [images(0, 890), images(0, 885), images(0, 870)]
    )
    by_dimension = {c.dimension: c.lead for c in found}
    assert by_dimension["depth"] is not None
    assert by_dimension["depth"].seeds == 3
    assert "compound beats depth" in verdict
    assert "compound is not distinguished from resolution (+0.17 points" in verdict


@pytest.mark.slow
def test_larger_networks_of_the_family_are_compared_with_smaller_ones() -> None:
    names = ("efficientnet_b4", "efficientnet_b0", "mobilenetv1_100", "efficientnet_b2")
    points = ",".join(f"{{network:{name}}}" for name in names)
    config = compose(["profile=laptop", f"scaling.points=[{points}]"])
    comparisons, (verdict,) = compared(config, [images(0, 900)], [images(0, 850)], [images(0, 300)], [images(0, 860)])
    assert comparisons == ()
    first, second, third = verdict.removeprefix("accuracy against size: ").split("; ")
    assert first.startswith("efficientnet_b2 beats efficientnet_b0 (+1.00 points, ")  # 10 to 0 images: p 0.002
    assert second.startswith("efficientnet_b4 beats efficientnet_b0 (+5.00 points, ")
    assert third.startswith("efficientnet_b4 beats efficientnet_b2 (+4.00 points, ")
    _, (tie,) = compared(config, [images(0, 849)], [images(0, 850)], [images(0, 300)], [images(0, 852)])
    assert tie.count("is not distinguished from") == 3


def test_networks_of_other_cost_are_not_compared_unless_the_study_is_of_equal_cost() -> None:
    config = compose(["profile=laptop", "scaling.points=[" + ",".join(TABLE7) + "]"])
    found, verdicts = compared(config, [images(0, 800)], [images(0, 850)], [images(0, 900)])
    assert found == ()
    assert verdicts == (
        "efficientnet_b0: no single dimension counts within 5% of the compound network, so nothing is compared; "
        "scaling=equal_cost compares at equal cost",
    )
    rough = compose(["profile=laptop", "scaling.equal_cost=2.0", "scaling.points=[" + ",".join(TABLE7) + "]"])
    rough.scaling.points = match_points(rough.model, rough.scaling, 10)
    _, (verdict,) = compared(rough, [images(0, 800)], [images(0, 850)], [images(0, 900)])
    assert verdict.endswith("p < 0.001), which counts 1.11 times as much")


TABLE7 = (
    "{network:efficientnet_b0}",
    "{network:efficientnet_b0,dimension:depth,depth:4.0}",
    "{network:efficientnet_b0,dimension:compound,depth:1.4,width:1.2,resolution:1.3}",
)


def test_a_point_that_failed_or_has_no_answers_is_not_compared() -> None:
    config = study("scaling.seeds=1")
    good = trained("a", images(0, 900))
    results: list[list[TrainResult | BaseException]] = [[good], [DivergedError("no")], [good], [good], [good]]
    points = summarize(config, [SHARDS], results, [None] * 5).points
    found, (verdict,) = compare_points(config.scaling, points, results, {"a": images(0, 900)}, [SHARDS])
    assert [c.lead is None for c in found] == [True, False, False]
    assert "compound and depth were not compared on the same images" in verdict
    found, _ = compare_points(config.scaling, points, results, {}, [SHARDS])
    assert all(c.lead is None for c in found)


def fold(number: int, n: int) -> ShardResult:
    return replace(SHARDS, manifest_sha256=str(number), val=n)


def test_seeds_of_several_folds_are_compared_within_each_and_by_the_leads_of_the_folds() -> None:
    """Two seeds of the first fold, one of each other; the last fold has other images, and fewer."""
    shards = [fold(0, 1000), fold(1, 1000), fold(2, 500), fold(0, 1000)]
    single = [images(0, 800), images(0, 810), images(0, 400, 500), images(0, 800)]
    compound = [images(0, 830), images(0, 850), images(0, 425, 500), images(0, 810)]
    config = study("scaling.seeds=4")
    found, _ = compared(config, single, single, single, single, compound, shards=shards)
    lead = found[0].lead
    assert lead == compare_folds(
        [np.stack([compound[0], compound[3]]), compound[1][None], compound[2][None]],
        [np.stack([single[0], single[3]]), single[1][None], single[2][None]],
        1000 / 800,
    )
    assert (lead.n, lead.seeds, lead.folds) == (2500, 4, 3)
    means = [(1000 * 82 + 1000 * 85 + 500 * 85) / 2500, (1000 * 80 + 1000 * 81 + 500 * 80) / 2500]
    assert [found[0].compound_top1, found[0].single_top1] == pytest.approx(means), "every image has the same weight"
    assert lead.value == pytest.approx(means[0] - means[1])


def test_folds_with_the_same_official_val_are_seeds_on_the_same_images() -> None:
    same, other = [images(0, 800)] * 3, [images(0, 900), images(0, 860), images(0, 880)]
    found, _ = compared(study(), same, same, same, same, other, shards=[fold(0, 1000)] * 3)
    assert found[0].lead == compare_paired(np.stack(other), np.stack(same))
