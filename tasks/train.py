"""Training and fine-tuning: jobs found by their key or run under supervision, each tracked as one MLflow run."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import Any

from prefect import task

from conf import compose, schema
from infra import machine, store
from infra.errors import DataError, EffnetError
from infra.launch import lease
from infra.store.json_objects import NUMBER, check_object, read_lines
from models.results import RungResult, TrainResult, result_from
from tasks import policy, slots
from tasks.jobs import JobRun, result_uri, stored_result
from tasks.metrics import split_result
from tasks.supervise import run_job
from tasks.tracked import finish_run_on_error


async def train(run: JobRun, config: schema.Config, parent_run: str, tags: dict[str, str]) -> TrainResult:
    """Trains one job, resumes it or returns its stored result, for which nothing is opened in Prefect.

    Raises:
        JobError: The job failed; the message holds the last lines of the worker's log.
        EffnetError: The error that the trainer reported.
    """
    result, mlflow_run, reused = await _find_or_run(run, config, parent_run, tags)
    context = {"job": run.key, "job_uri": run.job_uri, "mlflow_run": mlflow_run, "reused": reused}
    return result_from(TrainResult, {**result, **context}, result_uri(run))


async def train_to_rung(run: JobRun, config: schema.Config, parent_run: str, tags: dict[str, str]) -> RungResult:
    """Trains up to ``job.until_epoch`` and returns the minival accuracy there. Raises the same errors as ``train``."""
    _, mlflow_run, reused = await _find_or_run(run, config, parent_run, tags)
    row = await asyncio.to_thread(_last_row, run)
    return RungResult(row["epoch"], row["minival_top1"], row["minival_mean_per_class"], mlflow_run, reused)


def _last_row(run: JobRun) -> dict[str, Any]:
    """Last epoch in the trainer's metrics up to ``until_epoch``: an earlier run may have trained further."""
    until = run.job.until_epoch or run.job.recipe.epochs
    uri = store.join(run.job_uri, "metrics.jsonl")
    epochs = [row for row in read_lines(uri, epoch=NUMBER) if "train_loss" not in row]
    for row in epochs:
        check_object(uri, row, minival_top1=NUMBER, minival_mean_per_class=NUMBER)
    if not (reached := [row for row in epochs if row["epoch"] <= until]):
        raise DataError(f"{uri} has no row for an epoch up to {until}")
    return reached[-1]


async def _find_or_run(
    run: JobRun, config: schema.Config, parent_run: str, tags: dict[str, str]
) -> tuple[dict[str, Any], str, bool]:
    """Returns the job's result, its MLflow run, and whether the result existed before."""
    result, mlflow_run = await asyncio.to_thread(_look_up, run, config.experiment)
    if result is not None and mlflow_run is not None:
        return result, mlflow_run, True
    title = run.label if run.job.until_epoch is None else f"{run.label} to epoch {run.job.until_epoch}"
    async with nullcontext() if result else slots.queue(config.launch):
        return await run_tracked(title, run, config, parent_run, tags)


def _look_up(run: JobRun, experiment: str) -> tuple[dict[str, Any] | None, str | None]:
    """The stored result of a job and its finished MLflow run, None for what is missing."""
    from infra.tracking import runs

    with suppress(EffnetError):  # `run_tracked` repeats the requests and reports what is wrong
        result = stored_result(run)
        return result, runs.find_finished(experiment, run.key) if result else None
    return None, None


@task(task_run_name="{title}", **policy.TRAINING)
async def run_tracked(
    title: str,  # noqa: ARG001 - the name of the task run
    run: JobRun,
    config: schema.Config,
    parent_run: str,
    tags: dict[str, str],
) -> tuple[dict[str, Any], str, bool]:
    """Runs the job; returns its result, its MLflow run, and whether the result existed before."""
    from infra.tracking import runs

    reused = await asyncio.to_thread(stored_result, run) is not None
    mlflow_run = await asyncio.to_thread(_start_run, run, config, parent_run, tags)
    async with finish_run_on_error(mlflow_run), nullcontext() if reused else slots.slot_of(config.launch, run.label):
        result = await run_job(run, config, mlflow_run)
    metrics, described = split_result(result)
    if worker := await asyncio.to_thread(lease.last_worker, run.job_uri):
        described[runs.WORKER_TAG] = worker
    await asyncio.to_thread(runs.finish_run, mlflow_run, "FINISHED", metrics, described)
    return result, mlflow_run, reused


def track_finished(run: JobRun, config: schema.Config, result: dict[str, Any]) -> str:
    """Returns the finished MLflow run of a job that has a result; opens one if there is none."""
    from infra.tracking import runs

    existing = runs.find_finished(config.experiment, run.key)
    if existing is not None:
        return existing
    mlflow_run = _start_run(run, config, "", {"role": "train"})
    runs.finish_run(mlflow_run, "FINISHED", *split_result(result))
    return mlflow_run


def _start_run(run: JobRun, config: schema.Config, parent_run: str, tags: dict[str, str]) -> str:
    from infra.tracking import cards, runs

    provenance = {
        "data_manifest_sha256": run.job.manifest_sha256,
        "data_manifest_uri": run.job.manifest_uri,
        "job_uri": run.job_uri,
        "profile": config.profile,
        **{f"machine.{key}": value for key, value in machine.facts().items()},
    }
    run_id = runs.start_run(
        config.experiment,
        run.label,
        run.key,
        parent=parent_run or None,
        params={**compose.to_dict(run.job), "launch": compose.to_dict(config.launch)},
        tags={**provenance, **tags},
    )
    data = cards.DataSet(run.job.data_name, run.job.manifest_sha256, run.job.manifest_uri)
    cards.log_dataset(run_id, data, "training")
    return run_id
