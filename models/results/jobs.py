"""Results of jobs: shards, training, evaluation, registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conf import schema


def result_name(job: schema.Job) -> str:
    """Returns the name of the job's result object in the run folder: one per early stop, and one for the whole job."""
    until = job.until_epoch
    return "result.json" if until is None or until >= job.recipe.epochs else f"until-{until:05d}.json"


@dataclass(frozen=True)
class ShardResult:
    """A finished data set in the object store."""

    name: str
    manifest_uri: str
    manifest_sha256: str
    classes: int
    train: int
    minival: int
    val: int
    shards: int
    reused: bool
    quarantined: int = 0  # images of the source that do not decode; the manifest names them with the reason
    missing: tuple[str, ...] = ()  # one line per official count that the source does not reach, or excluded shard
    left_out: tuple[str, ...] = ()  # shards excluded by the configuration; the counts do not include them
    unused: tuple[str, ...] = ()  # one line per reason for which files of the source are no samples, with their number
    class_differences: tuple[str, ...] = ()  # one line per split that lacks classes which another split has
    duplicates: tuple[str, ...] = ()  # lines about equal images in several classes, or in train and val


@dataclass(frozen=True)
class TrainResult:
    """A finished training job. Accuracies are in percent, for the EMA weights selected on minival.

    A job that also trained on minival selects nothing: it reports the last EMA weights, and ``n_minival`` is 0.
    """

    job: str
    job_uri: str
    model: str
    params: int
    multiply_adds: int
    resolution: int
    classes: int
    epochs: int
    steps: int
    top1: float
    top5: float
    n_val: int
    minival_top1: float
    n_minival: int
    minutes: float  # of training over all attempts, without evaluation, start and waiting
    images_per_s: float
    weights_uri: str
    weights_sha256: str
    class_correct: tuple[int, ...] = ()  # val images per class: correct at top-1; class_total counts all of them
    class_total: tuple[int, ...] = ()
    correct_sha256: str = ""  # of the per-image bits (models/training/per_image.py); "" for jobs that predate them
    minival_correct_sha256: str = ""  # as correct_sha256, of minival
    answers_sha256: str = ""  # of the predicted class and its probability for each val image, in the same module
    calibration_error: float | None = None  # expected calibration error on val in percent; None for older jobs
    world_size: int = 1  # of the last attempt
    compiled: bool = False
    state_sha256: str = ""  # of the final weights, average and optimizer
    accepted_changes: tuple[dict[str, Any], ...] = ()  # differences under which the job was allowed to resume
    mlflow_run: str = ""
    reused: bool = False
    registered: Registered | None = None  # with register=NAME


@dataclass(frozen=True)
class RungResult:
    """Minival accuracy of a job after an epoch, in percent, with the EMA weights of that epoch."""

    epoch: int
    top1: float
    mean_per_class: float
    mlflow_run: str
    reused: bool


@dataclass(frozen=True)
class EvalResult:
    """A finished evaluation: every sample of the split counted once."""

    job: str
    model_ref: str
    data: str
    top1: float
    top5: float
    n: int
    class_correct: tuple[int, ...] = ()
    class_total: tuple[int, ...] = ()
    correct_sha256: str = ""  # as in TrainResult
    job_uri: str = ""
    answers_sha256: str = ""
    calibration_error: float | None = None
    mlflow_run: str = ""  # of `effnet evaluate`
    assumed: str = ""  # what is assumed about the class names of imported weights


@dataclass(frozen=True)
class Registered:
    """A version in the model registry."""

    name: str
    version: int
    aliases: tuple[str, ...]
    reused: bool = False
    verdict: str = ""  # why the version is or is not champion
    outcome: str = ""  # promoted, tied or refused by the gate (tasks/registry/gate.py), or a night that was skipped
    page: str = ""  # page of the night that made it
