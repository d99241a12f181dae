"""Transfer learning step by step: which sets, what each costs, its jobs, who goes on from a rung, what is chosen."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prefect import task

from conf import compose, schema
from conf.text import logger
from infra.errors import ConfigError, DataError, DivergedError, JobError, first_line
from models.experiments import transfer as protocol
from models.experiments.transfer import Cost, Point
from models.paper import TABLE5_BY_SOURCE
from models.results import RungResult, ShardResult
from tasks import policy
from tasks.supervise import JobRun
from tasks.train import short_name, train_job

log = logger()
Weights = tuple[str, str]


@dataclass(frozen=True)
class TransferPlan:
    """What is to be done for one network on one set."""

    config: schema.Config  # of this set and this network
    shards: ShardResult
    points: list[Point]
    rungs: list[int]
    cost: Cost
    feature_params: int

    @property
    def title(self) -> str:
        """What people see."""
        return f"transfer {short_name(self.config.model.name)} to {self.shards.name}"


def set_overrides(config: schema.Config, overrides: list[str]) -> list[list[str]]:
    """Each of ``transfer.sets`` in the words of the command line; without any, ``transfer.data``.

    Raises:
        ConfigError: no such set, one twice, or no folder to find it in.
    """
    wanted, known = config.transfer, compose.options("data")
    for name in wanted.sets:
        if name not in known or wanted.sets.count(name) > 1:
            wrong = "twice" if name in known else "which is none"
            raise ConfigError(f"transfer.sets names {name!r} {wrong}; choices: {', '.join(known)}")
        if name in TABLE5_BY_SOURCE and wanted.path is None:
            raise ConfigError(f"transfer.sets needs transfer.path=FOLDER, which holds a folder for each: {name}/, ...")
    if not wanted.sets:
        return [overrides]
    paths = [[f"transfer.data.path={wanted.path.rstrip('/')}/{name}"] if wanted.path else [] for name in wanted.sets]
    return [
        [*overrides, "transfer.sets=[]", f"data@transfer.data={name}", *path]
        for name, path in zip(wanted.sets, paths, strict=True)
    ]


@task(task_run_name="plan transfer to {shards.name}", **policy.BOOKKEEPING)
async def plan_transfer(config: schema.Config, shards: ShardResult) -> TransferPlan:
    """Checks a set and counts what it will cost, before anything is trained.

    Raises:
        DataError: a class has no images in train or in test.
        ConfigError: the recipe does not fit the set.
    """
    return await asyncio.to_thread(_plan, config, shards)


def _plan(config: schema.Config, shards: ShardResult) -> TransferPlan:
    from models.data.shards import manifest as manifests
    from models.networks.build import compute_cost, feature_params

    wanted = config.transfer
    found = manifests.load_verified(shards.manifest_uri, shards.manifest_sha256)
    for split, called in (("train", "train"), ("val", "test")):
        empty = [found.classes[i] for i, n in enumerate(manifests.class_counts(found, split)) if n == 0]
        if empty:
            named = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
            raise DataError(
                f"{shards.name}: {len(empty)} of {shards.classes} classes have no image in {called}: {named}"
            )
    points = protocol.grid(wanted)
    recipe = protocol.recipe_for(wanted, points[0], shards.train)
    _, multiply_adds, _ = compute_cost(config.model, shards.classes)
    cost = protocol.cost(wanted, shards.train, shards.minival, shards.val, multiply_adds)
    rungs = protocol.rung_epochs(wanted.rungs, recipe) if len(points) > 1 else []
    plan = TransferPlan(config, shards, points, rungs, cost, feature_params(config.model))
    final_job(plan, points[0], ("", ""))  # refuses a batch that does not fit
    return plan


def announce(plans: Sequence[TransferPlan]) -> None:
    """Says what all of it will cost, set by set and in all."""
    for plan in plans:
        log.info("%s (%s): %s", plan.title, plan.config.transfer.protocol, _said(plan.cost))
    if len(plans) > 1:
        log.info("transfer to %d sets: %s", len(plans), _said(protocol.sum_costs([plan.cost for plan in plans])))


def announce_time(plans: Sequence[TransferPlan], images_per_s: float) -> None:
    """Says how long it may take, at the speed that the same network was trained with before."""
    minutes = sum(plan.cost.train_images for plan in plans) / images_per_s / 60
    log.info(
        "transfer: about %.3g min one job after another, at the %.0f images/s of the training; without the start "
        "of each job",
        minutes,
        images_per_s,
    )


def _said(cost: Cost) -> str:
    return (
        f"{cost.jobs} job{'s' * (cost.jobs > 1)}, {cost.train_images:,} training and {cost.eval_images:,} "
        f"evaluation images, {cost.multiply_adds:.3g} multiply-adds"
    )


def point_job(plan: TransferPlan, point: Point, weights: Weights, until_epoch: int | None) -> JobRun:
    """The job of one point of the grid; to a rung, or to its end."""
    recipe = protocol.recipe_for(plan.config.transfer, point, plan.shards.train)
    label = f"{plan.title} rate {point.lr_per_256:g} decay {point.weight_decay:g}"
    run = train_job(plan.config, plan.config.transfer.data, recipe, plan.shards, weights, label)
    return replace(run, job=replace(run.job, until_epoch=until_epoch))


def final_job(plan: TransferPlan, point: Point, weights: Weights) -> JobRun:
    """The job of the chosen point, on all that it may train on."""
    wanted, shards = plan.config.transfer, plan.shards
    samples = shards.train + shards.minival * (wanted.final_split != "train")
    recipe = protocol.recipe_for(wanted, point, samples)
    return train_job(plan.config, wanted.data, recipe, shards, weights, plan.title, wanted.final_split)


@task(task_run_name="grid of {plan.title}", **policy.BOOKKEEPING)
async def start_grid(plan: TransferPlan, weights: Weights, parent_run: str) -> str:
    """Opens the MLflow run that the points of a grid are shown under."""

    def start() -> str:
        from infra.tracking import runs

        config = plan.config
        asked = {
            "transfer": compose.to_dict(config.transfer),
            "model": compose.to_dict(config.model),
            "weights_sha256": weights[1],
        }
        key = "transfer-" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
        params = {**asked, "cost": dataclasses.asdict(plan.cost)}
        return runs.start_run(
            config.experiment, plan.title, key, parent=parent_run or None, params=params, tags={"role": "transfer"}
        )

    return await asyncio.to_thread(start)


@dataclass
class GridTrial:
    """One point of the grid and how it went."""

    point: Point
    standing: RungResult | None = None
    stopped_at_epoch: int | None = None
    reason: str | None = None
    found: bool = True  # all of it, by earlier runs

    def value(self, metric: str) -> float | None:
        """Its accuracy on minival at the last epoch it came to; None: it has diverged."""
        if self.standing is None or self.reason is not None:
            return None
        return self.standing.mean_per_class if metric == "mean per class" else self.standing.top1


def record_rung(tried: Sequence[GridTrial], results: Sequence[RungResult | BaseException]) -> None:
    """Writes down how points came to their rung. One that diverges or breaks ends alone.

    Raises:
        EffnetError: of what the network and the point are not to blame for.
    """
    for each, result in zip(tried, results, strict=True):
        if isinstance(result, DivergedError | JobError):
            each.reason, each.found = first_line(result), False
        elif isinstance(result, BaseException):
            raise result
        else:
            each.standing, each.found = result, each.found and result.reused


def prune(plan: TransferPlan, alive: list[GridTrial], epoch: int) -> list[GridTrial]:
    """Those that go on from a rung."""
    metric = plan.config.transfer.data.metric
    kept = protocol.survivors([each.value(metric) for each in alive], plan.config.transfer.keep)
    for number, each in enumerate(alive):
        if number not in kept:
            each.stopped_at_epoch = epoch
    log.info("%s: %d of %d points go on from epoch %d", plan.title, len(kept), len(alive), epoch)
    return [alive[number] for number in kept]


def select_best(plan: TransferPlan, alive: Sequence[GridTrial]) -> Point:
    """The best point on minival of those that came to the end.

    Raises:
        DivergedError: none did.
    """
    metric = plan.config.transfer.data.metric
    chosen = protocol.best([each.value(metric) for each in alive])
    if chosen is None:
        raise DivergedError(f"{plan.title}: no point of the grid came to its end; lower transfer.lr_per_256")
    return alive[chosen].point
