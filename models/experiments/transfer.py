"""Protocol of transfer learning: the grid, training length per data set, survivors of a rung, and cost.

Unpromising grid points end early by successive halving: all points train to a rung, which is an epoch; there the best
fraction by minival accuracy (ties included) continues. A rung ends a job but never affects its learning-rate schedule,
so a point that continues ends with the same bits as one that was never stopped.

Source of the protocol: Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?", as restated in SimCLR,
appendix B.8. Source of the rule: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from conf import schema
from models.data.loading.order import steps_per_epoch

EVALUATIONS = 20  # per job if its epochs follow from its steps: small data sets have more than a thousand epochs
BACKWARD = 2  # backward / forward multiply-adds: gradients of inputs and of weights


@dataclass(frozen=True)
class Point:
    """One point of the grid, in the units of the recipe."""

    lr_per_256: float
    weight_decay: float


@dataclass(frozen=True)
class Cost:
    """Cost estimate of a request before it starts; includes what earlier runs already did."""

    jobs: int
    train_images: int
    eval_images: int
    multiply_adds: int  # of all images: a training image counts three forward passes


def grid(request: schema.Transfer) -> list[Point]:
    """Lists all points, learning rates outermost; without requested rates, only the recipe's point.

    Weight decay is divided by the peak rate, so that a step shrinks a weight equally at every rate.
    """
    recipe = request.recipe
    if not request.lr_per_256:
        return [Point(recipe.lr_per_256, recipe.weight_decay)]
    scale = recipe.global_batch / 256
    return [Point(rate, decay / (rate * scale)) for rate in request.lr_per_256 for decay in request.weight_decay]


def recipe_for(request: schema.Transfer, point: Point, samples: int) -> schema.Recipe:
    """Returns the recipe of one point for a data set of ``samples`` training images.

    If ``steps`` is set: whole epochs of at least that many steps, and BN momentum max(1 - 10 / s, 0.9) in TensorFlow's
    convention at s steps per epoch (SimCLR B.8).
    """
    recipe = replace(request.recipe, lr_per_256=point.lr_per_256, weight_decay=point.weight_decay)
    if request.steps is None:
        return recipe
    steps = max(1, steps_per_epoch(samples, recipe.global_batch))
    epochs = -(-request.steps // steps)
    return replace(recipe, epochs=epochs, eval_every_epochs=-(-epochs // EVALUATIONS), bn_momentum=min(10 / steps, 0.1))


def rung_epochs(shares: Sequence[float], recipe: schema.Recipe) -> list[int]:
    """Epochs at which points may end: the given fractions of all epochs, rounded up to the next evaluation."""
    every = recipe.eval_every_epochs
    epochs = {math.ceil(share * recipe.epochs / every - 1e-9) * every for share in shares}
    return sorted(epoch for epoch in epochs if epoch < recipe.epochs)


def count_survivors(keep: float, count: int) -> int:
    """How many of ``count`` points continue after a rung, if there are no ties."""
    return max(1, math.ceil(keep * count - 1e-9))


def survivors(values: Sequence[float | None], keep: float) -> list[int]:
    """Indices of the points that continue after a rung, in ascending order.

    Args:
        values: Accuracy of each point; None: it diverged.
        keep: Fraction of all points that continues, rounded up.
    """
    ranked = sorted((value for value in values if value is not None), reverse=True)
    if not ranked:
        return []
    last = ranked[: count_survivors(keep, len(values))][-1]
    return [number for number, value in enumerate(values) if value is not None and value >= last]


def best(values: Sequence[float | None]) -> int | None:
    """Index of the best point; the first of ties. None: all diverged."""
    ranked = [(value, -number) for number, value in enumerate(values) if value is not None]
    return -max(ranked)[1] if ranked else None


def cost(request: schema.Transfer, train: int, minival: int, val: int, multiply_adds: int) -> Cost:
    """Counts jobs and images, assuming no ties at a rung.

    Args:
        request: Transfer protocol.
        train: Number of training images.
        minival: Number of minival images.
        val: Number of validation images.
        multiply_adds: Multiply-adds of a forward pass on one image.
    """
    points = grid(request)
    final_images = train + minival * (request.final_split != "train")
    jobs, trained, evaluated = 0, 0, 0
    if len(points) > 1:
        recipe = recipe_for(request, points[0], train)
        batch, alive, begun = recipe.global_batch, len(points), 0
        for rung in (*rung_epochs(request.rungs, recipe), recipe.epochs):
            trained += alive * (rung - begun) * steps_per_epoch(train, batch) * batch
            evaluated += alive * _count_evaluations(recipe, begun, rung) * minival
            if rung < recipe.epochs:
                alive, begun = count_survivors(request.keep, alive), rung
        jobs, evaluated = len(points), evaluated + alive * val
    if len(points) == 1 or final_images != train:
        recipe = recipe_for(request, points[0], final_images)
        jobs += 1
        trained += recipe.epochs * steps_per_epoch(final_images, recipe.global_batch) * recipe.global_batch
        evaluated += val + (final_images == train) * _count_evaluations(recipe, 0, recipe.epochs) * minival
    return Cost(jobs, trained, evaluated, multiply_adds * ((1 + BACKWARD) * trained + evaluated))


def sum_costs(costs: Sequence[Cost]) -> Cost:
    """Sums costs field by field."""
    return Cost(*(sum(column) for column in zip(*map(astuple, costs), strict=True)))


def _count_evaluations(recipe: schema.Recipe, begun: int, epoch: int) -> int:
    """Number of evaluations on minival in epochs ``(begun, epoch]``."""
    every = recipe.eval_every_epochs
    return epoch // every - begun // every + (epoch == recipe.epochs and epoch % every > 0)
