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


def lines(config: schema.Config) -> Iterator[str]:
    """Yields what ``effnet nightly`` would do, line by line.

    Raises:
        ConfigError: The night would be refused before its training: no such champion, or no data.
        TransientError: MLflow or the store does not answer.
    """
    stopped = [] if stack.connect_if_running(Path(config.run_dir), config.services, "mlflow") else ["MLflow"]
    stopped += [] if connect_store(config) else ["the object store"]
    if stopped:
        yield (
            f"unknown: the champion that the night continues and its new data, since {' and '.join(stopped)} of "
            f"{config.run_dir} do not run; `effnet up` starts them"
        )
        return
    from infra.tracking import registry

    start = resolve_start(config)
    parent = registry.resolve_version(start.parent)
    begins = "its champion is fine-tuned" if start.continues else "a new line, its first version is fine-tuned from it"
    yield f"line       {start.line}: {start.parent}, {begins}"
    images = _count_images(start.data, config.storage)
    shards, counts = images.shards, images.counts
    about = "" if shards is not None else "about "
    yield f"data       {start.data.name}: {about}{_describe_images(counts)}, {_describe_change(start, counts)}"
    if start.continues and shards is not None and parent.tags.get("data_manifest_sha256") == shards.manifest_sha256:
        yield f"training   none: no new data, {start.parent} was trained on the same images"
        return
    model, processes = _load_model(parent), config.launch.processes
    processor = processors.of_jobs(config.launch)
    job = _describe_job(replace(config, model=model), start, parent, shards)
    recipe = config.transfer.recipe
    work = count_training(recipe, model, images.classes, counts, parallelism_of(config))
    if job is not None and store.exists(result_uri(job)):
        yield f"training   none: {job.key} is stored"
        works = [Work("", 0, 0, 0, 0, work.multiply_adds, 0)]
    else:
        speed = work.images / replace(work, jobs=0, evaluated=0).wall_s(processor, processes)
        steps = (
            f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}, {work.steps:,} steps of {recipe.global_batch} images"
        )
        yield f"training   {model.name}: {steps}, about {speed:,.0f} images/s"
        works = [work]
    if start.continues:
        works.append(Work("", 2, 0, 0, 2 * counts[2], work.multiply_adds, 0))
        yield f"evaluation champion and challenger on the same {counts[2]:,} images of val"
    took = format_duration(total_wall_s(works, processor, replace(config.launch, jobs_at_once=1)))
    yield f"takes      {took} on {processes} x {processor.name}"
    yield f"           speeds: {processor.source}"


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


def _describe_images(counts: tuple[int, int, int]) -> str:
    return f"{counts[0]:,} images of train, {counts[1]:,} of minival, {counts[2]:,} of val"


def _describe_change(start: NightStart, counts: tuple[int, int, int]) -> str:
    """How many images more or fewer than the champion was trained on."""
    if not start.continues:
        return "the first of the line"
    old = load_champion_data(start.parent)
    if old is None:
        return f"those of {start.parent} cannot be read"
    change = sum(counts) - sum(old.samples(split) for split in manifests.SPLITS)
    return f"{change:+,} since {start.parent}" if change else f"as many as {start.parent} was trained on"


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
