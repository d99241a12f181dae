"""Steps of transfer learning: data sets, cost, jobs, and the results beside Table 5."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import replace

from prefect import task

from conf import compose, schema
from conf.overrides import replace as replace_words
from conf.text import format_duration, logger
from infra import store
from infra.errors import ConfigError, DataError, first_line
from infra.store.json_objects import read_object
from models.experiments import transfer as protocol
from models.experiments.transfer import GridTrial, TransferPlan
from models.results import Cost, Point, ShardResult, TrainResult, TransferResult, TransferRow, result_from
from tasks import policy
from tasks.jobs import JobRun, train_job, transfer_job, work_key
from tasks.report import results as report_results
from tasks.shard import ShardPlan

log = logger()
Weights = tuple[str, str]
PART = "transfer"
SPLITS = {"train": "train", "val": "test"}  # that every class needs, and how transfer calls them
FORMAT = 2  # of a row; rows of other formats are ignored


def set_configs(config: schema.Config, overrides: list[str]) -> list[schema.Config]:
    """The configuration of each of ``transfer.sets``, or of ``transfer.data`` if that is empty.

    With several sets, ``register`` is followed by the name of the set.

    Args:
        config: Configuration of the command.
        overrides: Overrides of the command; those of ``transfer.data`` apply to every set.

    Raises:
        ConfigError: Unknown or repeated data set, or no folder for it.
    """
    options = config.transfer
    protocol.check_sets(options)
    if not options.sets:
        return [config]
    several = len(options.sets) > 1
    words = {
        name: [f"transfer.data.path={options.path.rstrip('/')}/{name}"] if options.path else [] for name in options.sets
    }
    for name in options.sets if several and config.register else ():  # versions of one model are of one data set
        words[name].append(f"register={config.register}-{name}")
    return [
        compose.compose(replace_words(overrides, ["transfer.sets=[]", f"data@transfer.data={name}", *words[name]]))
        for name in options.sets
    ]


def check_plans(plans: Sequence[ShardPlan]) -> None:
    """Refuses before any set is written, which may take hours, what ``plan_transfer`` would refuse after it.

    Raises:
        DataError: A class has no images in train or in test.
    """
    from models.data.sources.class_remarks import describe_uncovered

    for plan in plans:
        for split, absent in plan.uncovered:
            raise DataError(f"{plan.name}: {describe_uncovered(absent, len(plan.classes), SPLITS[split])}")


@task(task_run_name="plan transfer to {shards.name}", **policy.BOOKKEEPING)
async def plan_transfer(config: schema.Config, shards: ShardResult, folds: Sequence[ShardResult]) -> TransferPlan:
    """Checks a data set and estimates the cost of transfer to it, before any training.

    Args:
        config: Configuration with the data set.
        shards: The data set of the first seed.
        folds: Those of all seeds, each with the fold that it is trained on.

    Raises:
        DataError: A class has no images in train or in test.
        ConfigError: The recipe does not fit the data set, or a grid would be chosen on images that other folds test.
    """
    return await asyncio.to_thread(plan, config, shards, folds)


def plan(config: schema.Config, shards: ShardResult, folds: Sequence[ShardResult] = ()) -> TransferPlan:
    """Checks and estimates as ``plan_transfer`` does, and raises its errors."""
    from models.data.shards import manifest as manifests
    from models.data.sources.class_remarks import describe_uncovered
    from models.networks.build import compute_cost, feature_params

    options = config.transfer
    by_seed = tuple(folds) or (shards,) * max(1, options.random_seeds)
    distinct = list({one.manifest_sha256: one for one in by_seed}.values())
    for fold in distinct:
        manifest = manifests.load_verified(fold.manifest_uri, fold.manifest_sha256, fold.left_out)
        for split, split_name in SPLITS.items():
            empty = [manifest.classes[i] for i, n in enumerate(manifests.class_counts(manifest, split)) if n == 0]
            if empty:
                raise DataError(f"{shards.name}: {describe_uncovered(empty, shards.classes, split_name)}")
    points = protocol.grid(options)
    if len(points) > 1 and len(distinct) > 1:
        raise ConfigError(
            f"transfer.lr_per_256 and transfer.weight_decay make a grid of {len(points)} points, chosen on images that "
            f"other folds test: give one recipe, or transfer.data.folds=1 in place of {options.data.folds}"
        )
    recipe = protocol.recipe_for(options, points[0], shards.train)
    _, multiply_adds, _ = compute_cost(config.model, shards.classes)
    cost = protocol.cost(options, shards.train, shards.minival, shards.val, multiply_adds)
    rungs = protocol.rung_epochs(options.rungs, recipe) if len(points) > 1 else []
    planned = TransferPlan(config, by_seed, points, rungs, cost, feature_params(config.model))
    final_job(planned, points[0], ("", ""))  # raises if the batch does not fit
    return planned


def announce(plans: Sequence[TransferPlan]) -> None:
    """Logs the cost of each data set and the total."""
    for plan in plans:
        log.info("%s (%s): %s", plan.title, plan.config.transfer.protocol, _format_cost(plan.cost))
    if len(plans) > 1:
        log.info("transfer to %d sets: %s", len(plans), _format_cost(protocol.sum_costs([plan.cost for plan in plans])))


def announce_time(plans: Sequence[TransferPlan], images_per_s: float) -> None:
    """Logs the estimated duration, from the training speed of the same network."""
    seconds = sum(plan.cost.train_images for plan in plans) / images_per_s
    log.info(
        "transfer: about %s if nothing is done yet, one job after another, at the %.0f images/s of the training; "
        "excluding the start-up of each job",
        format_duration(seconds),
        images_per_s,
    )


def _format_cost(cost: Cost) -> str:
    return (
        f"{cost.jobs} job{'s' * (cost.jobs > 1)}, {cost.train_images:,} training and {cost.eval_images:,} "
        f"evaluation images, {cost.multiply_adds:.3g} multiply-adds"
    )


def point_job(plan: TransferPlan, point: Point, weights: Weights, until_epoch: int | None) -> JobRun:
    """The job of one grid point, up to ``until_epoch`` or to its end."""
    recipe = protocol.recipe_for(plan.config.transfer, point, plan.shards.train)
    label = f"{plan.title} rate {point.lr_per_256:g} decay {point.weight_decay:g}"
    run = train_job(plan.config, plan.config.transfer.data, recipe, plan.shards, weights, label)
    return replace(run, job=replace(run.job, until_epoch=until_epoch))


def final_job(plan: TransferPlan, point: Point, weights: Weights | None, seed: int = 0) -> JobRun:
    """The job of the chosen point, on all samples of the final split.

    Args:
        plan: The plan of the set.
        point: The chosen point.
        weights: Weights that are fine-tuned; None for random ones.
        seed: Counts from the recipe's.
    """
    label = f"{plan.title}{'' if weights else ' from random weights'}{f' seed {seed}' if seed else ''}"
    return transfer_job(plan.config, plan.folds[seed], point, weights, label, seed)


@task(task_run_name="compare {plan.title}", **policy.BOOKKEEPING)
async def compare_with_random(
    plan: TransferPlan, result: TransferResult, tuned: Sequence[TrainResult], scratch: Sequence[TrainResult]
) -> TransferResult:
    """The result of a set with the comparison of fine-tuned and random weights, by their answers to the same images."""

    def compare() -> TransferResult:
        from models.training import per_image

        stored = {job.job: per_image.read(job.job_uri, vars(job)) for job in (*tuned, *scratch)}
        answers = {job: correct for job, correct in stored.items() if correct is not None}
        return protocol.with_random_start(result, tuned, scratch, answers, plan.folds)

    return await asyncio.to_thread(compare)


@task(task_run_name="grid of {plan.title}", **policy.BOOKKEEPING)
async def start_grid(plan: TransferPlan, weights: Weights, parent_run: str) -> str:
    """Opens the parent MLflow run of the grid points."""

    def start() -> str:
        from infra.tracking import runs

        config = plan.config
        request = {
            "transfer": compose.to_dict(config.transfer),
            "model": compose.to_dict(config.model),
            "weights_sha256": weights[1],
        }
        key = work_key("transfer", request)
        params = {**request, "cost": dataclasses.asdict(plan.cost)}
        return runs.start_run(
            config.experiment, plan.title, key, parent=parent_run or None, params=params, tags={"role": "transfer"}
        )

    return await asyncio.to_thread(start)


@task(task_run_name="end of the grid of {plan.title}", **policy.BOOKKEEPING)
async def finish_grid(
    plan: TransferPlan,  # noqa: ARG001 - the name of the task run
    run: str,
    result: TransferResult,
) -> None:
    """Ends the MLflow run of a grid with the accuracy of the chosen point."""
    from infra.tracking import runs

    await asyncio.to_thread(runs.finish_run, run, "FINISHED", {"val/top1": result.top1})


def prune(plan: TransferPlan, alive: Sequence[GridTrial], epoch: int) -> list[GridTrial]:
    """Stops all but the best trials at a rung and returns those that continue."""
    kept = protocol.prune(plan, alive, epoch)
    log.info("%s: %d of %d points continue after epoch %d", plan.title, len(kept), len(alive), epoch)
    return kept


@task(task_run_name="record transfer", **policy.BOOKKEEPING)
async def record_transfer(
    config: schema.Config, command: str, plans: list[TransferPlan], results: list[TransferResult | BaseException]
) -> None:
    """Writes the report part, including the names of failed data sets.

    Args:
        config: Configuration of the command.
        command: The command that makes this result, for the report.
        plans: One plan per data set.
        results: Result of each plan, or its exception.

    Raises:
        TransientError: The store does not respond; the same call resumes later.
    """
    await asyncio.to_thread(_record, config, command, plans, results)


def _record(
    config: schema.Config,
    command: str,
    plans: Sequence[TransferPlan],
    results: Sequence[TransferResult | BaseException],
) -> None:
    failed = []
    for plan, result in zip(plans, results, strict=True):
        if isinstance(result, TransferResult):
            name = f"{result.data}-{result.network}-{result.protocol}.json"
            row = dataclasses.asdict(_row_of(result, command))
            store.write_json(store.join(_rows_folder(config), name), row)
        else:
            failed.append(f"{plan.title}: {first_line(result)}")
    publish_transfer(config, failed)


def _rows_folder(config: schema.Config) -> str:
    return store.join(config.storage, "reports", config.profile, PART)


def _row_of(result: TransferResult, command: str) -> TransferRow:
    from infra import machine
    from infra.tracking import runs

    return TransferRow(
        **vars(result),
        format=FORMAT,
        mlflow_url=runs.run_url(result.mlflow_run),
        command=command,
        commit=machine.commit(),
        finished=machine.format_utc(time.time()),
        paper=protocol.printed(result.source, result.network),
    )


def publish_transfer(config: schema.Config, failed: Sequence[str]) -> None:
    """Writes the part from all rows of this profile, including those of earlier commands.

    A row that cannot be read is named as missing: the command that made it writes it again.
    """
    rows, unread = list[TransferRow](), list[str]()
    for uri in store.list_uris(_rows_folder(config)):
        try:
            row = read_object(uri)
            rows += [result_from(TransferRow, row, uri)] if row.get("format") == FORMAT else []
        except DataError as error:
            unread.append(str(error))
    data = {row.data: row.manifest_sha256 for row in rows}
    report_results.publish_part(config, PART, protocol.summarize(rows, [*failed, *unread]), data)
