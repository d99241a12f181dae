"""Protocol of transfer learning: the grid, training length per data set, survivors of a rung, cost and results.

Unpromising grid points end early by successive halving: all points train to a rung, which is an epoch; there the best
fraction by minival accuracy (ties included) continues. A rung ends a job but never affects its learning-rate schedule,
so a point that continues ends with the same bits as one that was never stopped.

Source of the protocol: Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?", as restated in SimCLR,
appendix B.8. Source of the rule: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import TYPE_CHECKING

from conf import schema
from conf.overrides import options
from infra.errors import ConfigError, DivergedError, JobError, first_line
from models import statistics
from models.data.loading.order import steps_per_epoch
from models.experiments.paired import compare_seeds, describe_lead, stack_by_fold
from models.networks.build import compute_cost
from models.paper import TABLE5_BY_SOURCE
from models.results import (
    Cost,
    GridRow,
    PaperRival,
    PaperTransfer,
    Point,
    RandomStart,
    RungResult,
    ShardResult,
    TrainResult,
    TransferPart,
    TransferResult,
    TransferRow,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EVALUATIONS = 20  # per job if its epochs follow from its steps: small data sets have more than a thousand epochs
ABSENT = "not fine-tuned here with Table 5's"  # in the line about a result that was not run
BACKWARD = 2  # backward / forward multiply-adds: gradients of inputs and of weights


@dataclass(frozen=True)
class TransferPlan:
    """Plan for one network on one data set."""

    config: schema.Config  # of this set and this network
    folds: tuple[ShardResult, ...]  # the data set of each seed, with the fold that it is trained on
    points: list[Point]
    rungs: list[int]
    cost: Cost
    feature_params: int

    @property
    def shards(self) -> ShardResult:
        """The data set of the first seed."""
        return self.folds[0]

    @property
    def title(self) -> str:
        """Display name."""
        return f"transfer {self.config.model.name.removeprefix('efficientnet_')} to {self.shards.name}"


@dataclass
class GridTrial:
    """One point of the grid and its result."""

    point: Point
    standing: RungResult | None = None
    stopped_at_epoch: int | None = None
    reason: str | None = None
    reused: bool = True  # whether earlier runs did all of it

    def value(self, metric: str) -> float | None:
        """Minival accuracy at its last epoch; None if it diverged."""
        if self.standing is None or self.reason is not None:
            return None
        return self.standing.mean_per_class if metric == "mean per class" else self.standing.top1


def with_side(model: schema.Model, side: int | None) -> schema.Model:
    """The network for images of ``side`` pixels; unchanged for None."""
    return model if side is None else replace(model, resolution=model.resolution * side / compute_cost(model, 1)[2])


def check_sets(request: schema.Transfer) -> None:
    """Raises if ``sets`` names a data set that is unknown, repeated or without a folder.

    Raises:
        ConfigError: Unknown or repeated data set, no folder for it, or a folder for none.
    """
    if request.path is not None and not request.sets:
        raise ConfigError(
            f"transfer.path={request.path} is the folder of transfer.sets, which names none: transfer.sets=[pets] "
            "and so on name those in it; transfer.data.path=FOLDER is that of a single set"
        )
    choices = options("data")
    for name in request.sets:
        if name not in choices or request.sets.count(name) > 1:
            problem = "repeated" if name in choices else "unknown"
            raise ConfigError(f"transfer.sets: {problem} data set {name!r}; choices: {', '.join(choices)}")
        if name in TABLE5_BY_SOURCE and request.path is None:
            raise ConfigError(f"transfer.sets needs transfer.path=FOLDER, with one folder per data set: {name}/, ...")


def check_source(config: schema.Config) -> None:
    """Raises ConfigError if two settings name the network that is fine-tuned."""
    if config.transfer.network is not None and config.model_ref is not None:
        raise ConfigError("transfer.network and model_ref both name the network that is fine-tuned; give one of them")


def list_starts(options: schema.Transfer) -> list[schema.Transfer]:
    """Returns the fine-tunings of a study, a public network each: the first with all seeds, the others with one."""
    seeds = min(1, options.random_seeds)
    more = [name for name in dict.fromkeys(options.more_networks) if name != options.network]
    return [options, *(replace(options, network=name, random_seeds=seeds) for name in more)]


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
    is_point = len(points) > 1 and final_images == train  # the job of the best point is then the last one
    finals = max(1, 2 * request.random_seeds) - is_point
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
    recipe = recipe_for(request, points[0], final_images)
    jobs += finals
    trained += finals * recipe.epochs * steps_per_epoch(final_images, recipe.global_batch) * recipe.global_batch
    evaluated += finals * (val + (final_images == train) * _count_evaluations(recipe, 0, recipe.epochs) * minival)
    return Cost(jobs, trained, evaluated, multiply_adds * ((1 + BACKWARD) * trained + evaluated))


def count_final_jobs(request: schema.Transfer, train: int) -> int:
    """Number of jobs on the final split that train to their end, assuming no ties at a rung."""
    points = grid(request)
    if request.final_split != "train":
        return 1  # the best point, once more
    alive = len(points)
    for _ in rung_epochs(request.rungs, recipe_for(request, points[0], train)) if alive > 1 else ():
        alive = count_survivors(request.keep, alive)
    return alive


def sum_costs(costs: Sequence[Cost]) -> Cost:
    """Sums costs field by field."""
    return Cost(*(sum(column) for column in zip(*map(astuple, costs), strict=True)))


def _count_evaluations(recipe: schema.Recipe, begun: int, epoch: int) -> int:
    """Number of evaluations on minival in epochs ``(begun, epoch]``."""
    every = recipe.eval_every_epochs
    return epoch // every - begun // every + (epoch == recipe.epochs and epoch % every > 0)


def record_rung(tried: Sequence[GridTrial], results: Sequence[RungResult | BaseException]) -> None:
    """Records each trial's result at its rung. A trial that diverges or crashes is dropped; the others continue.

    Raises:
        EffnetError: An error that the trial did not cause, e.g. an unreachable store.
    """
    for trial, result in zip(tried, results, strict=True):
        if isinstance(result, DivergedError | JobError):
            trial.reason, trial.reused = first_line(result), False
        elif isinstance(result, BaseException):
            raise result
        else:
            trial.standing, trial.reused = result, trial.reused and result.reused


def prune(plan: TransferPlan, alive: Sequence[GridTrial], epoch: int) -> list[GridTrial]:
    """Stops all but the best trials at a rung and returns those that continue."""
    metric = plan.config.transfer.data.metric
    kept = survivors([trial.value(metric) for trial in alive], plan.config.transfer.keep)
    for number, trial in enumerate(alive):
        if number not in kept:
            trial.stopped_at_epoch = epoch
    return [alive[number] for number in kept]


def select_best(plan: TransferPlan, alive: Sequence[GridTrial]) -> Point:
    """The best point on minival among the finished trials.

    Raises:
        DivergedError: No trial finished.
    """
    metric = plan.config.transfer.data.metric
    chosen = best([trial.value(metric) for trial in alive])
    if chosen is None:
        raise DivergedError(f"{plan.title}: no point of the grid finished; lower transfer.lr_per_256")
    return alive[chosen].point


def with_random_start(
    result: TransferResult,
    tuned: Sequence[TrainResult],
    scratch: Sequence[TrainResult],
    answers: Mapping[str, NDArray[np.bool_]],
    folds: Sequence[ShardResult],
) -> TransferResult:
    """Adds the comparison of fine-tuned weights with random ones to the result of the first seed.

    Args:
        result: The result of ``tuned[0]``.
        tuned: Results of fine-tuning, by seed.
        scratch: Results from random weights, by seed.
        answers: By job, which test images it classified correctly, ``[images]``.
        folds: The data set of each seed, with the fold that it was trained on.
    """
    ours, theirs = (stack_by_fold([one.job for one in results], answers, folds) for results in (tuned, scratch))
    start = RandomStart(
        tuned_top1=tuple(one.top1 for one in tuned),
        random_top1=tuple(one.top1 for one in scratch),
        lead=None if ours is None or theirs is None else compare_seeds(ours, theirs, folds),
    )
    more = sum(one.reused for one in (*tuned[1:], *scratch))
    return replace(result, random_start=start, jobs_found=result.jobs_found + more)


def describe_starts(results: Sequence[TransferResult]) -> list[str]:
    """Says of each network that was compared with random weights whether fine-tuning leads; 5 % over all of them."""
    compared = [(one, one.random_start) for one in results if one.random_start is not None]
    return [
        describe_lead(
            f"{one.network} fine-tuned on {one.data}", "training from random weights", start.lead, len(compared)
        )
        if start.lead
        else f"{one.network} on {one.data}: the answers of a training are not stored, so nothing is compared"
        for one, start in compared
    ]


def result_of(plan: TransferPlan, tried: Sequence[GridTrial], chosen: Point, final: TrainResult) -> TransferResult:
    """Combines the grid and the final job into the result, in the data set's metric."""
    data = plan.config.transfer.data
    scored = statistics.estimate(data.metric, final.class_correct, final.class_total)
    grid_rows = tuple(
        GridRow(
            **asdict(trial.point),
            value=trial.value(data.metric),
            n=plan.shards.minival,
            stopped_at_epoch=trial.stopped_at_epoch,
            reason=trial.reason,
            mlflow_run=trial.standing.mlflow_run if trial.standing else "",
        )
        for trial in tried
    )
    is_point = bool(tried) and plan.config.transfer.final_split == "train"  # the final job is then the grid point's job
    return TransferResult(
        data=data.name,
        manifest_sha256=plan.shards.manifest_sha256,
        source=data.source,
        train=plan.shards.train,
        classes=plan.shards.classes,
        network=final.model,
        protocol=plan.config.transfer.protocol,
        metric=data.metric,
        value=scored.value,
        standard_error=scored.standard_error,
        n=scored.n,
        top1=final.top1,
        top5=final.top5,
        params=final.params,
        feature_params=plan.feature_params,
        multiply_adds=final.multiply_adds,
        resolution=final.resolution,
        chosen=chosen,
        grid=grid_rows,
        cost=plan.cost,
        jobs_found=sum(trial.reused for trial in tried) + (final.reused and not is_point),
        minutes=final.minutes,
        job=final.job,
        mlflow_run=final.mlflow_run,
    )


def summarize(rows: Sequence[TransferRow], failed: Sequence[str]) -> TransferPart:
    """All results of a profile, and what of Table 5 is missing.

    Args:
        rows: Results of this command and of earlier ones.
        failed: One line per failed data set.
    """
    done = {(row.source, row.network) for row in rows}
    missing = list(failed)
    for source, row in TABLE5_BY_SOURCE.items():
        absent = [ours.name for ours in (row.ours_public, row.ours_best) if (source, ours.name) not in done]
        if absent:
            missing.append(f"{row.data}: {ABSENT} {' and '.join(absent)}")
    commands = dict.fromkeys(row.command for row in rows)
    return TransferPart(rows=tuple(rows), missing=tuple(missing), command="; ".join(commands))


def printed(source: str, network: str) -> PaperTransfer | None:
    """Values of Table 5 for a network on a data set."""
    row = TABLE5_BY_SOURCE.get(source)
    pairs = ((row.ours_public, row.public), (row.ours_best, row.best)) if row else ()
    for ours, rival in pairs:
        if ours.name == network:
            return PaperTransfer(
                value=ours.accuracy,
                params=_to_count(ours.params_m),
                multiply_adds=None,
                rival=PaperRival(name=rival.name, value=rival.accuracy, params=_to_count(rival.params_m)),
                source="Table 5",
            )
    return None


def _to_count(millions: float | None) -> int | None:
    return None if millions is None else round(millions * 1e6)
