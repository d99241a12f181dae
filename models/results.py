"""Frozen result records returned to the flows. They hold numbers and references, never tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar, get_origin, get_type_hints

from conf import schema
from infra.errors import DataError
from infra.store.json_objects import NUMBER, Kind, check_object

T = TypeVar("T")
# The JSON types that correspond to a field's type.
_COUNTS = tuple[int, ...]
_KINDS: dict[Any, Kind] = {float: NUMBER, _COUNTS: (list, tuple), tuple[dict[str, Any], ...]: (list, tuple)}


def result_name(job: schema.Job) -> str:
    """Returns the name of the job's result object in the run folder: one per early stop, and one for the whole job."""
    until = job.until_epoch
    return "result.json" if until is None or until >= job.recipe.epochs else f"until-{until:05d}.json"


def result_from(kind: type[T], facts: Mapping[str, Any], where: str) -> T:
    """Builds a result from a JSON object.

    Args:
        kind: One of the frozen dataclasses below.
        facts: The object.
        where: Source of the object, for the message.

    Raises:
        DataError: The object lacks a field, has an unknown one, or holds a value of another type.
    """
    hints = get_type_hints(kind)
    if unknown := sorted(facts.keys() - hints.keys()):
        raise DataError(f"{where} holds the key {unknown[0]!r}, which {kind.__name__} does not define")
    required = {
        spec.name
        for spec in fields(kind)  # type: ignore[arg-type]
        if spec.default is MISSING and spec.default_factory is MISSING
    }
    for name in sorted(facts.keys() | required):
        check_object(where, dict(facts), **{name: _KINDS.get(hints[name], get_origin(hints[name]) or hints[name])})
        if hints[name] == _COUNTS and any(type(count) is not int for count in facts[name]):
            raise DataError(f"{where} does not hold a list of counts as {name!r}")
    return kind(**facts)


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
    minutes: float
    images_per_s: float
    weights_uri: str
    weights_sha256: str
    class_correct: tuple[int, ...] = ()  # val images per class: correct at top-1; class_total counts all of them
    class_total: tuple[int, ...] = ()
    correct_sha256: str = ""  # of the per-image bits (models/training/per_image.py); "" for jobs that predate them
    world_size: int = 1  # of the last attempt
    compiled: bool = False
    state_sha256: str = ""  # of the final weights, average and optimizer
    accepted_changes: tuple[dict[str, Any], ...] = ()  # differences under which the job was allowed to resume
    mlflow_run: str = ""
    reused: bool = False


@dataclass(frozen=True)
class RungResult:
    """Minival accuracy of a job after an epoch, in percent, with the EMA weights of that epoch."""

    epoch: int
    top1: float
    mean_per_class: float
    mlflow_run: str
    reused: bool


@dataclass(frozen=True)
class TransferResult:
    """One network on one transfer data set, in that data set's metric. Accuracies are in percent of the test images."""

    data: str
    manifest_sha256: str
    source: str  # name of the data set in models/data/sources/catalog.py
    train: int  # training images
    classes: int
    network: str
    protocol: str
    metric: str
    value: float
    standard_error: float
    n: int
    top1: float
    top5: float
    params: int
    feature_params: int  # without the classifier, as Table 5 counts
    multiply_adds: int
    resolution: int
    chosen: dict[str, float]
    grid: list[dict[str, Any]]  # per point: learning rate, weight decay, minival accuracy, its n, where it stopped
    cost: dict[str, int]
    jobs_found: int  # of cost["jobs"]: done by earlier runs
    minutes: float
    job: str
    mlflow_run: str


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


@dataclass(frozen=True)
class Registered:
    """A version in the model registry."""

    name: str
    version: int
    aliases: tuple[str, ...]
    reused: bool = False
    verdict: str = ""  # why the version is or is not champion


@dataclass(frozen=True)
class Trial:
    """One point of the (alpha, beta, gamma) grid."""

    alpha: float
    beta: float
    gamma: float
    product: float
    params: int
    multiply_adds: int
    resolution: int
    minival_top1: float
    n_minival: int
    standard_error: float  # of minival_top1, in points
    counted_cost: float  # multiply-adds relative to the baseline, after rounding; ``product`` is the target
    mlflow_run: str = ""


@dataclass(frozen=True)
class Summary:
    """Contents of ``summary.json``, written by ``make reproduce`` and shown in the report."""

    wall_s: float
    jobs: int  # of this reproduction
    jobs_found: int  # of these, done by earlier runs; wall_s excludes their time
    profile: str
    commit: str
    variants: list[dict[str, Any]]
    search: dict[str, Any]
    transfer: list[dict[str, Any]]
    data: list[dict[str, Any]]
    machine: dict[str, Any]
    services: dict[str, str]
    started: str
    finished: str
    command: str
    missing: list[str] = field(default_factory=list)  # failed parts, each with a one-line reason
    config: dict[str, Any] = field(default_factory=dict)  # the requested configuration
    config_sha256: str = ""  # of ``config`` as JSON with sorted keys
