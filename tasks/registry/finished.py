"""Finds a finished training job by whatever names it, and reads from its run folder what its registration needs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from conf.fields import require_name
from conf.nightly import FIRST_VAL
from infra.errors import ConfigError, NotFoundError
from infra.launch.job import REQUEST_FILE, read_request
from models.results import ShardResult, TrainResult, result_from
from tasks import policy
from tasks.jobs import JobRun, result_uri, stored_result, train_name
from tasks.train import track_finished

if TYPE_CHECKING:
    from models.data.shards.manifest import Manifest

SAMPLED = 32  # images of val that are looked for in the lists of frozen vals


@dataclass(frozen=True)
class FinishedJob:
    """A finished training job.

    Attributes:
        job: Its request.
        result: Its result, with its MLflow run.
        data: Name, excluded shards, augmentation and frozen val of its data set; not where the images came from.
        shards: Its shards.
    """

    job: schema.Job
    result: TrainResult
    data: schema.Data
    shards: ShardResult


def name_model(name: str | None, job: schema.Job, val: str | None) -> str:
    """Returns the name under which a job is registered.

    Without ``name`` that is ``efficientnet-b0``, or ``efficientnet-b0-DATA`` for a network that was fine-tuned, and
    ``efficientnet-b0-DATA-VAL`` if the frozen val of its data is not the first one: the name of the line of nights.

    Raises:
        ConfigError: The name of network and data set together is too long.
    """
    default = job.model.name.replace("_", "-")
    if job.init_weights_uri is not None:
        default = "-".join([default, job.data_name, *([] if val in (None, FIRST_VAL) else [str(val)])])
    chosen = name or default
    try:
        require_name("register", chosen)
    except ValueError as error:
        raise ConfigError(f"{error}; give another name, register=NAME") from error
    return chosen


@task(task_run_name="find job {word}", **policy.BOOKKEEPING)
async def find_finished_job(word: str, config: schema.Config) -> FinishedJob:
    """Reads a finished training job; opens an MLflow run for it if there is none.

    Args:
        word: Run folder of the job as a URI or a local path, or its key, id or name in MLflow as ``find_run`` takes it.
        config: Configuration of the command.

    Raises:
        ConfigError: There is no such job, it has not finished, or it is no training.
        DataError: A file of the run folder or the data set is damaged.
    """
    return await asyncio.to_thread(_find, word, config)


def _find(word: str, config: schema.Config) -> FinishedJob:
    from models.data.shards import manifest as manifests
    from models.data.shards.stored import build_result

    job_uri = _find_run_folder(word, config.experiment).rstrip("/")
    try:
        job = replace(read_request(job_uri), until_epoch=None)
    except NotFoundError:
        raise ConfigError(f"{job_uri} is no run folder of a job: it has no {REQUEST_FILE}") from None
    key = job_uri.rpartition("/")[2]
    if job.kind != "train":
        raise ConfigError(f"{key} is an evaluation; only a training has weights to register")
    run = JobRun(job, key, job_uri, train_name(job).replace("-", " "))
    stored = stored_result(run)
    if stored is None:
        raise ConfigError(
            f"{key} has not finished: {result_uri(run)} is missing; the command that trains it resumes it"
        )
    context = {"job": key, "job_uri": job_uri, "mlflow_run": track_finished(run, config, stored), "reused": True}
    complete = manifests.load_verified(job.manifest_uri, job.manifest_sha256, [])
    val = _find_frozen_val(manifests.exclude_shards(complete, job.leave_out), job.manifest_uri)
    data = schema.Data(name=job.data_name, leave_out=job.leave_out, augment=job.augment, frozen_val=val)
    return FinishedJob(
        job,
        result_from(TrainResult, {**stored, **context}, result_uri(run)),
        data,
        build_result(data, job.manifest_uri, job.manifest_sha256, complete, reused=True),
    )


def _find_frozen_val(manifest: Manifest, manifest_uri: str) -> str | None:
    """The name of the frozen val of a data set, which neither its manifest nor the job states."""
    from models.data.loading import selection
    from models.data.shards import frozen_val
    from models.data.shards.manifest import class_counts

    counts = dict(zip(manifest.classes, class_counts(manifest, "val").tolist(), strict=True))
    ids = range(min(SAMPLED, manifest.samples("val")))
    images = selection.read(manifest, manifest_uri, "val", ids)
    sample = [(data, manifest.classes[label]) for data, label in zip(images.blobs, images.labels, strict=True)]
    return frozen_val.find_name(manifest_uri.rsplit("/", 2)[0], counts, sample)


def _find_run_folder(word: str, experiment: str) -> str:
    from infra.tracking import queries

    if "://" in word:
        return word
    if Path(word).is_dir():
        return f"file://{Path(word).resolve()}"
    run = queries.find_run(experiment, word)
    if "job_uri" not in run.tags:
        raise ConfigError(f"{run.name} is no job, so it has no weights; `effnet runs` lists its jobs")
    return run.tags["job_uri"]
