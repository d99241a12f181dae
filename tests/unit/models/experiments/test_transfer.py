"""Transfer-learning protocols: grid, training lengths, rungs, selection and cost."""

import math
from dataclasses import replace

import numpy as np
import pytest

from conf import compose, schema
from models.experiments.transfer import (
    best,
    cost,
    count_survivors,
    describe_starts,
    grid,
    list_starts,
    recipe_for,
    rung_epochs,
    survivors,
    with_random_start,
    with_side,
)
from models.results import Point, RandomStart, ShardResult, TrainResult, TransferResult
from models.statistics import PairedTest, compare_paired
from models.training.optim import rate_at


def kornblith(**changes: object) -> schema.Transfer:
    return replace(compose.compose(["transfer=kornblith"]).transfer, **changes)  # type: ignore[arg-type]


def test_kornblith_s_grid_is_seven_rates_by_eight_decays_each_divided_by_the_rate() -> None:
    points = grid(kornblith())
    assert len(points) == 56
    rates = sorted({point.lr_per_256 for point in points})
    assert rates == pytest.approx([10 ** (-4 + k / 2) for k in range(7)], rel=1e-6)
    expected = [0.0, *(10 ** (-6 + k / 2) for k in range(7))]
    for rate in rates:  # at batch 256 the rate of 256 images is the peak rate
        products = [point.weight_decay * rate for point in points if point.lr_per_256 == rate]
        assert products == pytest.approx(expected, rel=1e-6)


def test_a_decay_is_divided_by_the_peak_rate_of_the_batch() -> None:
    request = kornblith(lr_per_256=[0.1], weight_decay=[0.002])
    request.recipe = replace(request.recipe, global_batch=64)
    assert grid(request) == [Point(0.1, pytest.approx(0.002 / 0.025))]


def test_without_a_grid_the_recipe_is_the_only_point() -> None:
    request = compose.compose(["transfer=author"]).transfer
    assert grid(request) == [Point(0.004, 1e-5)]
    assert recipe_for(request, grid(request)[0], 1000) == request.recipe


@pytest.mark.parametrize(
    ("images", "epochs", "momentum"),
    [
        (50_000, 103, 10 / 195),  # 195 steps an epoch: max(1 - 10/195, .9) = .9487
        (3_680, 1_429, 0.1),  # 14 steps an epoch: max(1 - 10/14, .9) = .9
        (75_750, 68, 10 / 295),
    ],
)
def test_twenty_thousand_steps_are_whole_epochs_and_bn_momentum_follows(
    images: int, epochs: int, momentum: float
) -> None:
    recipe = recipe_for(kornblith(), Point(0.01, 0.001), images)
    steps = images // 256
    assert (recipe.epochs, recipe.bn_momentum) == (epochs, pytest.approx(momentum))
    assert 20_000 <= recipe.epochs * steps < 20_000 + steps
    assert (recipe.lr_per_256, recipe.weight_decay) == (0.01, 0.001)
    assert math.ceil(recipe.epochs / recipe.eval_every_epochs) <= 20


def test_rungs_lie_on_evaluations_and_before_the_end() -> None:
    recipe = schema.Recipe(epochs=100, eval_every_epochs=1)
    assert rung_epochs([0.15, 0.4], recipe) == [15, 40]
    assert rung_epochs([0.15, 0.4], replace(recipe, eval_every_epochs=7)) == [21, 42]
    assert rung_epochs([0.1, 0.2, 0.99], replace(recipe, epochs=3)) == [1]  # two at the first epoch, one at the last


def test_the_schedule_does_not_know_of_a_rung() -> None:
    whole = schema.Job(kind="train", recipe=schema.Recipe(schedule="cosine", epochs=10, warmup_epochs=0.0))
    stopped = replace(whole, until_epoch=3)
    assert [rate_at(stopped.recipe, step, 5) for step in range(50)] == [rate_at(whole.recipe, s, 5) for s in range(50)]


@pytest.mark.parametrize(
    ("values", "keep", "going"),
    [
        ([10.0, 30.0, 20.0], 1 / 3, [1]),
        ([10.0, 30.0, 20.0, 40.0], 1 / 3, [1, 3]),  # 4/3, rounded up
        ([30.0, 30.0, 20.0], 1 / 3, [0, 1]),  # who equals the last that goes on goes on too
        ([None, 5.0, None], 1 / 3, [1]),
        ([None, 5.0, 6.0, 7.0, None, None], 1 / 3, [2, 3]),  # a share of all, diverged ones too
        ([5.0, None], 1.0, [0]),
        ([None, None], 0.5, []),
    ],
)
def test_the_best_share_goes_on_from_a_rung(values: list[float | None], keep: float, going: list[int]) -> None:
    assert survivors(values, keep) == going


def test_the_best_of_equals_is_the_first_and_of_nothing_none() -> None:
    assert best([None, 3.0, 5.0, 5.0]) == 2
    assert best([0.0]) == 0
    assert best([None]) is None


def test_a_single_job_s_cost_is_its_epochs_and_evaluations() -> None:
    request = compose.compose(["profile=laptop"]).transfer  # 6 epochs of 64 images a step
    estimate = cost(request, train=1132, minival=126, val=539, multiply_adds=1000)
    trained = 6 * 17 * 64
    assert (estimate.jobs, estimate.train_images, estimate.eval_images) == (1, trained, 6 * 126 + 539)
    assert estimate.multiply_adds == 1000 * (3 * trained + 6 * 126 + 539)


def test_a_grid_s_cost_counts_who_goes_on_from_each_rung_and_the_last_job() -> None:
    request = compose.compose(["transfer=laptop_kornblith"]).transfer  # 4 points, half of them beyond epoch 3 of 6
    estimate = cost(request, train=1132, minival=126, val=539, multiply_adds=1)
    assert estimate.jobs == 5
    assert estimate.train_images == (4 * 3 + 2 * 3) * 17 * 64 + 6 * (1258 // 64) * 64
    assert estimate.eval_images == (4 * 3 + 2 * 3) * 126 + 2 * 539 + 539


def test_a_grid_whose_best_point_is_the_last_job_costs_no_further_one() -> None:
    request = compose.compose(["transfer=laptop_kornblith", "transfer.final_split=train"]).transfer
    assert cost(request, train=1132, minival=126, val=539, multiply_adds=1).jobs == 4


def test_seeds_and_as_many_trainings_from_random_weights_are_counted() -> None:
    single, grid_too = ["profile=laptop"], ["transfer=laptop_kornblith", "transfer.final_split=train"]
    one, six = (
        cost(compose.compose([*single, f"transfer.random_seeds={seeds}"]).transfer, 1132, 126, 539, 1000)
        for seeds in (0, 3)
    )
    assert (six.jobs, six.train_images, six.eval_images) == (6, 6 * one.train_images, 6 * one.eval_images)
    assert six.multiply_adds == 6 * one.multiply_adds
    # Of four points the best is the first fine-tuning, so that one more and two from random weights are added.
    assert cost(compose.compose([*grid_too, "transfer.random_seeds=2"]).transfer, 1132, 126, 539, 1).jobs == 4 + 1 + 2


def test_a_network_for_images_of_another_side_is_otherwise_the_same() -> None:
    model = schema.Model(name="efficientnet_lite0", width=0.5, preprocessing="lite")
    small = with_side(model, 96)
    assert (small.width, small.preprocessing, small.resolution) == (0.5, "lite", pytest.approx(96 / 224))
    assert with_side(with_side(model, 96), 224) == model
    assert with_side(model, None) is model


RESULT = TransferResult(
    data="elpv",
    manifest_sha256="",
    source="elpv",
    train=1000,
    classes=2,
    network="efficientnet_lite0",
    protocol="single",
    metric="top-1",
    value=80.0,
    standard_error=1.0,
    n=1000,
    top1=80.0,
    top5=100.0,
    params=1,
    feature_params=1,
    multiply_adds=1,
    resolution=96,
    chosen=Point(0.016, 1e-5),
    grid=(),
    cost=cost(schema.Transfer(), 2000, 100, 100, 1),
    jobs_found=0,
    minutes=1.0,
    job="",
    mlflow_run="",
)
TRAINED = TrainResult(
    job="",
    job_uri="",
    model="efficientnet_lite0",
    params=1,
    multiply_adds=1,
    resolution=96,
    classes=2,
    epochs=1,
    steps=1,
    top1=0.0,
    top5=100.0,
    n_val=200,
    minival_top1=0.0,
    n_minival=0,
    minutes=1.0,
    images_per_s=1.0,
    weights_uri="",
    weights_sha256="",
    class_correct=(),
    class_total=(),
    mlflow_run="",
)


def result(data: str, lead: tuple[float, float] | None) -> TransferResult:
    """A result whose lead over random weights has this value and p."""
    test = PairedTest(lead[0], lead[0] - 2, lead[0] + 2, lead[1], n=1000, seeds=3) if lead else None
    start = RandomStart(tuned_top1=(80.0, 82.0, 81.0), random_top1=(70.0, 71.0, 69.0), lead=test)
    return replace(RESULT, data=data, random_start=start)


def test_verdicts_say_lead_loss_tie_and_absence_at_five_percent_over_all() -> None:
    results = [result("a", (10.0, 0.001)), result("b", (-5.0, 0.001)), result("c", (2.0, 0.03)), result("d", None)]
    beats, loses, ties, absent = describe_starts(results)
    said = "beats training from random weights (+10.00 points, +8.00 to +12.00, p 0.001)"
    assert beats == f"efficientnet_lite0 fine-tuned on a {said}"
    assert "loses to training from random weights (-5.00" in loses
    assert "is not distinguished from" in ties  # 0.03 is above 0.05 / 4
    assert absent.startswith("efficientnet_lite0 on d: the answers of a training are not stored")
    assert "beats" in describe_starts([results[2]])[0], "alone, 0.03 is below 0.05"


def test_a_study_fine_tunes_the_first_network_with_all_seeds_and_each_further_one_with_one() -> None:
    options = compose.compose(["profile=study"]).transfer
    listed = [(one.network, one.random_seeds) for one in list_starts(options)]
    assert listed == [("efficientnet_lite0", 3), ("efficientnet_lite1", 1), ("efficientnet_lite2", 1)]
    alone = list_starts(replace(options, network="efficientnet_lite2", random_seeds=0))
    assert [(one.network, one.random_seeds) for one in alone] == [
        ("efficientnet_lite2", 0),
        ("efficientnet_lite1", 0),
    ], "the network itself is not repeated"


def trained(job: str, top1: float, *, reused: bool = False) -> TrainResult:
    return replace(TRAINED, job=job, top1=top1, reused=reused)


SHARDS = ShardResult("a", "file:///m", "0", 10, 800, 100, 200, 5, reused=True)


def test_starts_are_compared_on_the_same_images_over_the_seeds() -> None:
    rng = np.random.default_rng(0)
    answers = {name: rng.random(200) < share for name, share in (("t0", 0.9), ("t1", 0.9), ("r0", 0.6), ("r1", 0.6))}
    tuned, scratch = [
        [trained(f"{kind}{i}", 100 * answers[f"{kind}{i}"].mean(), reused=kind == "r") for i in (0, 1)] for kind in "tr"
    ]
    base = result("a", None)
    compared = with_random_start(base, tuned, scratch, answers, [SHARDS, SHARDS])
    start = compared.random_start
    assert start is not None
    assert start.lead == compare_paired(
        np.stack([answers["t0"], answers["t1"]]), np.stack([answers["r0"], answers["r1"]])
    )
    assert start.lead is not None
    assert start.lead.value == pytest.approx(np.mean(start.tuned_top1) - np.mean(start.random_top1))
    assert compared.jobs_found == base.jobs_found + 2
    some = {name: bits for name, bits in answers.items() if name != "r1"}
    partial = with_random_start(base, tuned, scratch, some, [SHARDS, SHARDS])
    assert partial.random_start is not None
    assert partial.random_start.lead is None


def test_rungs_make_kornblith_s_grid_cost_a_third() -> None:
    plain, early = (cost(kornblith(rungs=rungs), 45_000, 5_000, 10_000, 1) for rungs in ([], [0.15, 0.4]))
    assert plain.jobs == early.jobs == 57
    assert 0.25 < early.train_images / plain.train_images < 0.4


def test_the_cost_is_what_a_walk_through_the_rungs_counts() -> None:
    request = kornblith(steps=700, rungs=[0.2, 0.3, 0.7], keep=0.4)
    train, minival, val = 2_000, 111, 222
    recipe = recipe_for(request, grid(request)[0], train)
    evaluated = {e for e in range(1, recipe.epochs + 1) if e % recipe.eval_every_epochs == 0} | {recipe.epochs}
    alive, images, looks, rungs = 56, 0, 0, rung_epochs(request.rungs, recipe)
    for epoch in range(1, recipe.epochs + 1):
        images += alive * (train // 256) * 256
        looks += alive * minival * (epoch in evaluated)
        alive = count_survivors(request.keep, alive) if epoch in rungs else alive
    last = recipe_for(request, grid(request)[0], train + minival)
    estimate = cost(request, train, minival, val, 1)
    assert estimate.train_images == images + last.epochs * ((train + minival) // 256) * 256
    assert estimate.eval_images == looks + alive * val + val
