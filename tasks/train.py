"""Training, fine-tuning and evaluation tasks: jobs keyed by digest, limited in number, tracked in MLflow."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

from prefect import task

from conf import compose, schema
from infra import machine, store
from infra.errors import DataError, TransientError
from infra.store.json_objects import NUMBER, read_lines
from models.data.loading.order import check_batch
from models.networks.efficientnet import block_strings
from models.results import EvalResult, RungResult, ShardResult, TrainResult, result_from, result_name
from tasks import policy, slots
from tasks.jobs import work_key
from tasks.supervise import JobRun, finished, result_uri, run_job

RECIPE_VERSION = 4  # increment when the same configuration must train to different weights


@cache
def _local_slots(loop: asyncio.AbstractEventLoop, limit: int) -> asyncio.Semaphore:  # noqa: ARG001 - the cache key
    """Queues the jobs of this process in order, since every refusal by the Prefect server costs seconds."""
    return asyncio.Semaphore(limit)


def train_job(
    config: schema.Config,
    data: schema.Data,
    recipe: schema.Recipe,
    shards: ShardResult,
    init_weights: tuple[str, str] | None,
    label: str = "",
    split: str = "train",
) -> JobRun:
    """Describes one training job. Its key is a digest of the request, so the same request is the same job."""
    # Fail early: the trainer repeats these checks, but only after about 10 s of start-up.
    block_strings.decode(config.model.blocks)
    images = shards.train if split == "train" else shards.train + shards.minival
    replicas = config.launch.nnodes * config.launch.nproc_per_node // config.runtime.pipeline_stages
    check_batch(recipe.global_batch, recipe.batch_slices, max(1, replicas), images)
    job = schema.Job(
        kind="train",
        model=config.model,
        data_name=shards.name,
        manifest_uri=shards.manifest_uri,
        manifest_sha256=shards.manifest_sha256,
        augment=data.augment,
        recipe=recipe,
        split=split,
        leave_out=list(shards.left_out),
        init_weights_uri=init_weights[0] if init_weights else None,
        init_weights_sha256=init_weights[1] if init_weights else None,
        runtime=config.runtime,
    )
    verb = "finetune" if init_weights else "train"
    return name_job(config, job, f"{verb}-{short_name(config.model.name)}-{shards.name}", label)


def evaluate_job(
    config: schema.Config, model: schema.Model, shards: ShardResult, weights: tuple[str, str], exact: str
) -> JobRun:
    """Describes an evaluation of registered weights."""
    job = schema.Job(
        kind="evaluate",
        model=model,
        data_name=shards.name,
        manifest_uri=shards.manifest_uri,
        manifest_sha256=shards.manifest_sha256,
        augment=config.data.augment,
        leave_out=list(shards.left_out),
        init_weights_uri=weights[0],
        init_weights_sha256=weights[1],
        runtime=config.runtime,
    )
    return name_job(config, job, f"evaluate-{exact.replace('/', '-v')}-{shards.name}")


def name_job(config: schema.Config, job: schema.Job, name: str, label: str = "") -> JobRun:
    """Assigns a job its key and its run folder."""
    request = compose.to_yaml(replace(job, runtime=schema.Runtime(), until_epoch=None))
    # With batch statistics per batch slice, the result does not depend on the number of processes.
    processes = f" {config.launch.nnodes}x{config.launch.nproc_per_node}/{config.runtime.pipeline_stages}"
    world = "" if job.recipe.bn_groups == "slice" else processes.removesuffix("/1")
    key = work_key(name, f"{RECIPE_VERSION}{world}\n{request}")
    return JobRun(job, key, store.join(config.storage, "jobs", key), label or name.replace("-", " "))


def short_name(model: str) -> str:
    """``efficientnet_b3`` -> ``b3``."""
    return model.removeprefix("efficientnet_")


@task(task_run_name="train {run.key}", **policy.TRAINING)
async def train(run: JobRun, config: schema.Config, parent_run: str, tags: dict[str, str]) -> TrainResult:
    """Trains one job, resumes it or returns its stored result; tracked as one MLflow run.

    Raises:
        JobError: The job failed; the message holds the last lines of the worker's log.
        EffnetError: The error that the trainer reported.
    """
    result, mlflow_run, reused = await _run_tracked(run, config, parent_run, tags)
    context = {"job": run.key, "job_uri": run.job_uri, "mlflow_run": mlflow_run, "reused": reused}
    return result_from(TrainResult, {**result, **context}, result_uri(run))


@task(task_run_name="train {run.key} to its rung", **policy.TRAINING)
async def train_to_rung(run: JobRun, config: schema.Config, parent_run: str, tags: dict[str, str]) -> RungResult:
    """Trains up to ``job.until_epoch`` and returns the minival accuracy there. Raises the same errors as ``train``."""
    _, mlflow_run, reused = await _run_tracked(run, config, parent_run, tags)
    row = await asyncio.to_thread(_last_row, run)
    return RungResult(row["epoch"], row["minival_top1"], row["minival_mean_per_class"], mlflow_run, reused)


def _last_row(run: JobRun) -> dict[str, Any]:
    """Last row of the trainer's log up to ``until_epoch``: an earlier run may have trained further."""
    until = run.job.until_epoch or run.job.recipe.epochs
    uri = store.join(run.job_uri, "metrics.jsonl")
    rows = read_lines(uri, epoch=NUMBER, minival_top1=NUMBER, minival_mean_per_class=NUMBER)
    if not (reached := [row for row in rows if row["epoch"] <= until]):
        raise DataError(f"{uri} has no row for an epoch up to {until}")
    return reached[-1]


async def _run_tracked(
    run: JobRun, config: schema.Config, parent_run: str, tags: dict[str, str]
) -> tuple[dict[str, Any], str, bool]:
    """Runs the job; returns its result, its MLflow run, and whether the result existed before."""
    from infra.tracking import runs

    reused = await asyncio.to_thread(finished, run) is not None
    mlflow_run = await asyncio.to_thread(_start_run, run, config, parent_run, tags)
    try:
        result = await _run_under_limit(run, config, mlflow_run)
    except BaseException:
        with suppress(TransientError):  # the job's error matters more than an unreachable MLflow
            await asyncio.to_thread(runs.finish_run, mlflow_run, "FAILED", {})
        raise
    numbers = {k: float(v) for k, v in result.items() if isinstance(v, int | float)}
    await asyncio.to_thread(runs.finish_run, mlflow_run, "FINISHED", {f"final_{k}": v for k, v in numbers.items()})
    return result, mlflow_run, reused


@task(task_run_name="evaluate {run.key}", **policy.TRAINING)
async def evaluate(run: JobRun, config: schema.Config, model_ref: str) -> EvalResult:
    """Evaluates, or returns a stored evaluation if its per-image results are intact."""
    await asyncio.to_thread(_forget_incomplete, run)
    result = await _run_under_limit(run, config, "")
    context = {"job": run.key, "model_ref": model_ref, "data": run.job.data_name, "job_uri": run.job_uri}
    return result_from(EvalResult, {k: v for k, v in (result | context).items() if k != "minutes"}, result_uri(run))


def _forget_incomplete(run: JobRun) -> None:
    """Deletes a stored evaluation result whose per-image results are missing or damaged."""
    from models.training import per_image

    done = finished(run)
    if done is not None and per_image.read(run.job_uri, done) is None:
        store.delete(store.join(run.job_uri, result_name(run.job)))


async def _run_under_limit(run: JobRun, config: schema.Config, mlflow_run: str) -> dict[str, Any]:
    done = await asyncio.to_thread(finished, run)
    if done is not None:  # needs no slot; only sends missing epochs to MLflow
        return await run_job(run, config, mlflow_run)
    async with _local_slots(asyncio.get_running_loop(), config.launch.jobs_at_once), slots.slot(run.label):
        return await run_job(run, config, mlflow_run)


def _start_run(run: JobRun, config: schema.Config, parent_run: str, tags: dict[str, str]) -> str:
    from infra.tracking import runs

    provenance = {
        "data_manifest_sha256": run.job.manifest_sha256,
        "data_manifest_uri": run.job.manifest_uri,
        "job_uri": run.job_uri,
        "profile": config.profile,
        **{f"machine.{key}": value for key, value in machine.facts().items()},
    }
    return runs.start_run(
        config.experiment,
        run.label,
        run.key,
        parent=parent_run or None,
        params={**compose.to_dict(run.job), "launch": compose.to_dict(config.launch)},
        tags={**provenance, **tags},
    )
