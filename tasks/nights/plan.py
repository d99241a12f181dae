"""What a night would do: its data, training and time, read from the registry and the store without starting anything.

Prefect is not imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from conf import schema
from conf.text import format_duration
from infra import store
from infra.errors import ConfigError, NotFoundError
from infra.services import stack
from models.data.shards import manifest as manifests
from models.data.shards import versions
from models.data.shards.split import split_indices
from models.data.shards.stored import find_last_result, find_result
from models.data.sources import catalog
from models.experiments import processors
from models.experiments.work import Work, count_training, parallelism_of, total_wall_s
from models.results import ShardResult
from tasks.jobs import JobRun, result_uri, train_job
from tasks.nights.start import NightStart, load_champion_data, load_job, resolve_start
from tasks.stored import connect_store

if TYPE_CHECKING:
    from infra.tracking.registry import Version


@dataclass(frozen=True)
class NightPlan:
    """What a night would do.

    Attributes:
        line: Registered model that the challenger becomes a version of.
        parent: ``NAME/VERSION`` that is fine-tuned.
        continues: Whether the parent is the champion of the line.
        data: Name of the data set.
        train: Images of train.
        minival: Images of minival.
        val: Images of val.
        is_exact: Whether their shards are known; otherwise the numbers are expected ones.
        change: Images more than the parent was trained on; None for a new line, or if those are not known.
        trains: Whether it trains; otherwise there are no new data, or the job is stored.
        job: Key of the job if it is stored; otherwise empty.
        network: Network that is trained; empty without new data.
        epochs: Epochs of the training.
        steps: Steps of the training.
        global_batch: Images of a step.
        images_per_s: Speed of the training.
        takes_s: Seconds of the night; None without new data.
        processes: Processes of the training.
        processor: Name of the processor of each.
        speeds: Where the speeds are from.
    """

    line: str
    parent: str
    continues: bool
    data: str
    train: int
    minival: int
    val: int
    is_exact: bool
    change: int | None
    trains: bool = False
    job: str = ""
    network: str = ""
    epochs: int = 0
    steps: int = 0
    global_batch: int = 0
    images_per_s: float = 0.0
    takes_s: float | None = None
    processes: int = 0
    processor: str = ""
    speeds: str = ""


def find_stopped(config: schema.Config) -> str:
    """Connects to MLflow and the store; says which of them do not run, empty if both do."""
    stopped = [] if stack.connect_if_running(Path(config.run_dir), config.services, "mlflow") else ["MLflow"]
    stopped += [] if connect_store(config) else ["the object store"]
    if not stopped:
        return ""
    return (
        f"unknown: the champion that the night continues and its new data, since {' and '.join(stopped)} of "
        f"{config.run_dir} do not run; `effnet up` starts them"
    )


def count_night(config: schema.Config) -> NightPlan:
    """Counts what ``effnet nightly`` would do; MLflow and the store run.

    Raises:
        ConfigError: The night would be refused before its training: no such champion, or no data.
        TransientError: MLflow or the store does not answer.
    """
    from infra.tracking import registry

    start = resolve_start(config)
    parent = registry.resolve_version(start.parent)
    images = _count_images(start.data, config.storage)
    shards, counts = images.shards, images.counts
    night = NightPlan(
        start.line,
        start.parent,
        start.continues,
        start.data.name,
        *counts,
        is_exact=shards is not None,
        change=_count_change(start, counts),
    )
    if start.continues and shards is not None and parent.tags.get("data_manifest_sha256") == shards.manifest_sha256:
        return night
    model, processes = _load_model(parent), config.launch.processes
    processor = processors.of_jobs(config.launch)
    job = _describe_job(replace(config, model=model), start, parent, shards)
    recipe = config.transfer.recipe
    work = count_training(recipe, model, images.classes, counts, parallelism_of(config))
    is_stored = job is not None and store.exists(result_uri(job))
    works = [Work("", 0, 0, 0, 0, work.multiply_adds, 0) if is_stored else work]
    if start.continues:
        works.append(Work("", 2, 0, 0, 2 * counts[2], work.multiply_adds, 0))
    return replace(
        night,
        trains=not is_stored,
        job=job.key if job is not None and is_stored else "",
        network=model.name,
        epochs=recipe.epochs,
        steps=work.steps,
        global_batch=recipe.global_batch,
        images_per_s=work.images / replace(work, jobs=0, evaluated=0).wall_s(processor, processes),
        takes_s=total_wall_s(works, processor, replace(config.launch, jobs_at_once=1)),
        processes=processes,
        processor=processor.name,
        speeds=processor.source,
    )


def describe(night: NightPlan) -> Iterator[str]:
    """Yields what a night would do, line by line."""
    begins = "its champion is fine-tuned" if night.continues else "a new line, its first version is fine-tuned from it"
    yield f"line       {night.line}: {night.parent}, {begins}"
    about = "" if night.is_exact else "about "
    images = f"{night.train:,} images of train, {night.minival:,} of minival, {night.val:,} of val"
    yield f"data       {night.data}: {about}{images}, {_describe_change(night)}"
    if night.takes_s is None:
        yield f"training   none: no new data, {night.parent} was trained on the same images"
        return
    if night.job:
        yield f"training   none: {night.job} is stored"
    else:
        steps = f"{night.steps:,} steps of {night.global_batch} images"
        epochs = f"{night.epochs} epoch{'s' * (night.epochs > 1)}"
        yield f"training   {night.network}: {epochs}, {steps}, about {night.images_per_s:,.0f} images/s"
    if night.continues:
        yield f"evaluation champion and challenger on the same {night.val:,} images of val"
    yield f"takes      {format_duration(night.takes_s)} on {night.processes} x {night.processor}"
    yield f"           speeds: {night.speeds}"


@dataclass(frozen=True)
class _Images:
    """The images of a night.

    Attributes:
        counts: Those of train, minival and val.
        classes: Number of their classes.
        shards: Their shards, if they are known; otherwise the counts are expected ones.
    """

    counts: tuple[int, int, int]
    classes: int
    shards: ShardResult | None = None


def _count_images(data: schema.Data, storage: str) -> _Images:
    """Counts the images of a night; of a set that grows by its shards and its file names, without reading an image."""
    if (shards := find_result(data, storage)) is not None:
        return _Images((shards.train, shards.minival, shards.val), shards.classes, shards)
    source = catalog.open_source(data)
    splits = split_indices(source, data)
    whole = (len(splits["train"]), len(splits["minival"]), len(splits["val"]))
    last = find_last_result(data, storage)
    if last is None:
        return _Images(whole, len(source.classes))
    new = max(0, len(source.labels) - versions.count_known(last.manifest_uri))
    train, minival, val = (round(new * count / len(source.labels)) for count in whole)
    if data.append:  # it adds to train alone
        return _Images((last.train + train, last.minival, last.val), last.classes)
    is_frozen = data.frozen_val is not None
    return _Images((last.train + train, last.minival + minival, last.val + val * (not is_frozen)), last.classes)


def _count_change(start: NightStart, counts: tuple[int, int, int]) -> int | None:
    """How many images more than the champion was trained on; None for a new line, or if its data cannot be read."""
    old = load_champion_data(start.parent) if start.continues else None
    return None if old is None else sum(counts) - sum(old.samples(split) for split in manifests.SPLITS)


def _describe_change(night: NightPlan) -> str:
    if not night.continues:
        return "the first of the line"
    if night.change is None:
        return f"those of {night.parent} cannot be read"
    if not night.change:
        return f"as many as {night.parent} was trained on"
    return f"{night.change:+,} since {night.parent}"


def _load_model(version: Version) -> schema.Model:
    from infra.tracking import registry

    try:
        return load_job(version).model
    except (NotFoundError, ConfigError):  # imported weights have no job; reading their description takes seconds
        return schema.Model(**registry.describe(version)["model"])


def _describe_job(
    config: schema.Config, start: NightStart, parent: Version, shards: ShardResult | None
) -> JobRun | None:
    """The training of the night, None if its shards do not exist: the key depends on them."""
    if shards is None:
        return None
    sha256 = parent.tags.get("weights_sha256", "")
    weights = (store.join(config.storage, "weights", f"{sha256}.safetensors"), sha256)
    recipe = config.transfer.recipe
    return train_job(config, start.data, recipe, shards, weights, keep_classifier=start.continues)
