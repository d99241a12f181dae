"""Frozen facts that travel back up to the flows. Numbers and references only, never tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar, get_origin, get_type_hints

from conf import schema
from infra.errors import DataError
from infra.store.json_objects import NUMBER, Kind, check_object

T = TypeVar("T")
# What JSON makes of a field's type.
_COUNTS = tuple[int, ...]
_KINDS: dict[Any, Kind] = {float: NUMBER, _COUNTS: (list, tuple), tuple[dict[str, Any], ...]: (list, tuple)}


def result_name(job: schema.Job) -> str:
    """The object in the run folder that a job leaves: one for each early end, and one for the whole."""
    until = job.until_epoch
    return "result.json" if until is None or until >= job.recipe.epochs else f"until-{until:05d}.json"


def result_from(kind: type[T], facts: Mapping[str, Any], where: str) -> T:
    """Builds a result out of a JSON object that was read back.

    Args:
        kind: One of the frozen dataclasses below.
        facts: The object.
        where: Place that it comes from, for the message.

    Raises:
        DataError: it lacks a field, has one that ``kind`` has not, or a value of another type.
    """
    hints = get_type_hints(kind)
    if unknown := sorted(facts.keys() - hints.keys()):
        raise DataError(f"{where} holds the key {unknown[0]!r}, which is none of a {kind.__name__}")
    required = {
        each.name
        for each in fields(kind)  # type: ignore[arg-type]
        if each.default is MISSING and each.default_factory is MISSING
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
    missing: tuple[str, ...] = ()  # one line for each official count that the source does not reach, or shard left out
    left_out: tuple[str, ...] = ()  # shards that were asked to be left out; the counts are without them


@dataclass(frozen=True)
class TrainResult:
    """A finished training job. Accuracies are percent, of the EMA weights chosen on minival.

    A job that trained on minival too chose nothing: it has the last EMA weights, and ``n_minival`` is 0.
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
    class_correct: tuple[int, ...] = ()  # of the val images of each class: right at top-1, and all
    class_total: tuple[int, ...] = ()
    correct_sha256: str = ""  # of the bits by image (models/training/per_image.py); "" = the job is older than they are
    world_size: int = 1  # that the last attempt ran on
    compiled: bool = False
    state_sha256: str = ""  # of weights, average and optimizer at the end
    accepted_changes: tuple[dict[str, Any], ...] = ()  # that resumes were told to go on under
    mlflow_run: str = ""
    reused: bool = False


@dataclass(frozen=True)
class RungResult:
    """Where a job stands on minival after an epoch, in percent: with the EMA weights of that epoch."""

    epoch: int
    top1: float
    mean_per_class: float
    mlflow_run: str
    reused: bool


@dataclass(frozen=True)
class TransferResult:
    """One network on one transfer set, as the set's own metric tells it; accuracies are percent of the test images."""

    data: str
    manifest_sha256: str
    source: str  # what models/data/sources/catalog.py calls the set
    train: int  # images of its training part
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
    grid: list[dict[str, Any]]  # of each point: rate, decay, accuracy on minival, its n, where it was stopped
    cost: dict[str, int]
    jobs_found: int  # of cost["jobs"], done by earlier runs
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
    correct_sha256: str = ""  # as TrainResult's
    job_uri: str = ""


@dataclass(frozen=True)
class Registered:
    """A version in the model registry."""

    name: str
    version: int
    aliases: tuple[str, ...]
    reused: bool = False
    verdict: str = ""  # why it is champion, or why it is not


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
    counted_cost: float  # multiply-adds over the baseline's, after rounding; ``product`` is the wish
    mlflow_run: str = ""


@dataclass(frozen=True)
class Summary:
    """What ``make reproduce`` leaves as ``summary.json`` and the report shows."""

    wall_s: float
    jobs: int  # of this reproduction
    jobs_found: int  # of these, done by earlier runs: wall_s does not hold their time
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
    missing: list[str] = field(default_factory=list)  # what failed, with its one-line reason
    config: dict[str, Any] = field(default_factory=dict)  # what was asked for
    config_sha256: str = ""  # of that as JSON with sorted keys
