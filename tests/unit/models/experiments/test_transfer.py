"""Transfer-learning protocols: grid, training lengths, rungs, selection and cost."""

import math
from dataclasses import replace

import pytest

from conf import compose, schema
from models.experiments.transfer import best, cost, count_survivors, grid, recipe_for, rung_epochs, survivors
from models.results import Point
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
