"""Transfer learning as arithmetic: the grid, how long a set is trained on, who goes on from a rung, and what it costs.

Hopeless points of the grid end early by successive halving: all points train to a rung, which is an epoch; there the
best share of them by minival goes on, with all who equal the last of these. A rung ends a job and never shapes its
learning rates, so a point that goes on comes to the same bits as one that was never stopped.

Source of the protocol: Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?", as restated in SimCLR,
appendix B.8. Source of the rule: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from conf import schema
from models.data.loading.order import steps_per_epoch

EVALUATIONS = 20  # of a job whose epochs follow from its steps: small sets have more than a thousand of them
BACKWARD = 2  # multiply-adds of a backward pass, in those of a forward pass: by inputs and by weights


@dataclass(frozen=True)
class Point:
    """One point of the grid, as its recipe has it."""

    lr_per_256: float
    weight_decay: float


@dataclass(frozen=True)
class Cost:
    """What is asked for, counted before it starts; what earlier runs did is in it."""

    jobs: int
    train_images: int
    eval_images: int
    multiply_adds: int  # of all images: a training image counts three forward passes


def grid(asked: schema.Transfer) -> list[Point]:
    """All points, rates outermost; where none are asked for, the recipe's own alone.

    A decay is divided by the peak rate: what a step takes off a weight is then the same at every rate.
    """
    recipe = asked.recipe
    if not asked.lr_per_256:
        return [Point(recipe.lr_per_256, recipe.weight_decay)]
    scale = recipe.global_batch / 256
    return [Point(rate, decay / (rate * scale)) for rate in asked.lr_per_256 for decay in asked.weight_decay]


def recipe_for(asked: schema.Transfer, point: Point, samples: int) -> schema.Recipe:
    """The recipe of one point for a set of ``samples`` training images.

    Where ``asked.steps`` is given: whole epochs of at least so many steps, and BN momentum max(1 - 10 / s, 0.9) in
    TensorFlow's sense at s steps an epoch (SimCLR B.8).
    """
    recipe = replace(asked.recipe, lr_per_256=point.lr_per_256, weight_decay=point.weight_decay)
    if asked.steps is None:
        return recipe
    steps = max(1, steps_per_epoch(samples, recipe.global_batch))
    epochs = -(-asked.steps // steps)
    return replace(recipe, epochs=epochs, eval_every_epochs=-(-epochs // EVALUATIONS), bn_momentum=min(10 / steps, 0.1))


def rung_epochs(shares: Sequence[float], recipe: schema.Recipe) -> list[int]:
    """Epochs at which points may end: each share of all of them, put off to the next evaluation."""
    every = recipe.eval_every_epochs
    epochs = {math.ceil(share * recipe.epochs / every - 1e-9) * every for share in shares}
    return sorted(epoch for epoch in epochs if epoch < recipe.epochs)


def count_survivors(keep: float, count: int) -> int:
    """How many of ``count`` points go on from a rung, if no two are equal."""
    return max(1, math.ceil(keep * count - 1e-9))


def survivors(values: Sequence[float | None], keep: float) -> list[int]:
    """Which points go on from a rung, in their order.

    Args:
        values: accuracy of each point; None: it diverged.
        keep: share of all of them that goes on, rounded up.
    """
    ranked = sorted((value for value in values if value is not None), reverse=True)
    if not ranked:
        return []
    last = ranked[: count_survivors(keep, len(values))][-1]
    return [number for number, value in enumerate(values) if value is not None and value >= last]


def best(values: Sequence[float | None]) -> int | None:
    """The best point; of equals the first. None: all diverged."""
    there = [(value, -number) for number, value in enumerate(values) if value is not None]
    return -max(there)[1] if there else None


def cost(asked: schema.Transfer, train: int, minival: int, val: int, multiply_adds: int) -> Cost:
    """Counts jobs and images, as if no two points were equal at a rung.

    Args:
        asked: the protocol.
        train: training images of the set; ``minival``, ``val``: of the other parts.
        minival: see there.
        val: see there.
        multiply_adds: of one image.
    """
    points = grid(asked)
    final_images = train + minival * (asked.final_split != "train")
    jobs, trained, evaluated = 0, 0, 0
    if len(points) > 1:
        recipe = recipe_for(asked, points[0], train)
        batch, alive, begun = recipe.global_batch, len(points), 0
        for rung in (*rung_epochs(asked.rungs, recipe), recipe.epochs):
            trained += alive * (rung - begun) * steps_per_epoch(train, batch) * batch
            evaluated += alive * _evaluations(recipe, begun, rung) * minival
            if rung < recipe.epochs:
                alive, begun = count_survivors(asked.keep, alive), rung
        jobs, evaluated = len(points), evaluated + alive * val
    if len(points) == 1 or final_images != train:
        recipe = recipe_for(asked, points[0], final_images)
        jobs += 1
        trained += recipe.epochs * steps_per_epoch(final_images, recipe.global_batch) * recipe.global_batch
        evaluated += val + (final_images == train) * _evaluations(recipe, 0, recipe.epochs) * minival
    return Cost(jobs, trained, evaluated, multiply_adds * ((1 + BACKWARD) * trained + evaluated))


def sum_costs(costs: Sequence[Cost]) -> Cost:
    """The cost of all of them."""
    return Cost(*(sum(column) for column in zip(*map(astuple, costs), strict=True)))


def _evaluations(recipe: schema.Recipe, begun: int, epoch: int) -> int:
    """How often a job is evaluated on minival after epoch ``begun``, up to and with ``epoch``."""
    every = recipe.eval_every_epochs
    return epoch // every - begun // every + (epoch == recipe.epochs and epoch % every > 0)
