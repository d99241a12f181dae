"""Class activation map tasks: select networks and images, draw the maps, publish them."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import compose, schema
from conf.text import logger
from infra.errors import ConfigError, first_line
from models.results import EvalResult, GalleryNetwork, GalleryResult, ShardResult, TrainResult
from tasks import policy
from tasks.jobs import short_name, work_key
from tasks.report import results as report_results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.data.loading.selection import SampleSelection
    from models.data.shards.manifest import Manifest

log = logger()
SPLIT = "val"
MULTIPLIERS = {"depth": "d", "width": "w", "resolution": "r"}  # in the paper's letters


@dataclass(frozen=True)
class Candidate:
    """A network to draw maps of."""

    name: str  # display name, unique
    dimension: str  # baseline | depth | width | resolution | compound
    model: schema.Model
    registered: str | None  # registered version to use instead of training

    def with_training(self, result: TrainResult) -> GalleryNetwork:
        """The candidate with the weights of its training job."""
        from infra.tracking import runs

        return GalleryNetwork(
            self.name,
            self.dimension,
            self.model,
            result.weights_uri,
            result.weights_sha256,
            result.top1,
            result.n_val,
            runs.run_url(result.mlflow_run),
            result.reused,
            job_uri=result.job_uri,
            correct_sha256=result.correct_sha256,
        )

    def with_registered(
        self, model: schema.Model, weights: tuple[str, str], augment: schema.Augment, result: EvalResult
    ) -> GalleryNetwork:
        """The candidate with registered weights, evaluated on the configured data."""
        network = GalleryNetwork(self.name, self.dimension, model, *weights, result.top1, result.n, "", reused=True)
        return dataclasses.replace(network, augment=augment, assumed=result.assumed)


@task(task_run_name="networks of the maps", **policy.BOOKKEEPING)
async def list_candidates(config: schema.Config) -> list[Candidate]:
    """Lists the networks, before any training.

    Raises:
        ConfigError: Unknown or repeated network.
    """
    return await asyncio.to_thread(build_candidates, config.explain)


def build_candidates(options: schema.Explain) -> list[Candidate]:
    """Describes the networks of ``options.models``; raises the errors of ``list_candidates``."""
    from models.networks.build import compute_cost

    by_name: dict[str, Candidate] = {}
    for entry in options.models:
        candidate = _candidate(options.model, entry)
        if candidate.name in by_name:
            raise ConfigError(f"explain.models names {candidate.name!r} twice")
        if candidate.registered is None:
            compute_cost(candidate.model, 1)  # raises for an unknown name
        by_name[candidate.name] = candidate
    return list(by_name.values())


def _candidate(base: schema.Model, entry: schema.GalleryEntry) -> Candidate:
    from models.experiments.scaling_study import network_of_entry

    if entry.registered is not None:
        return Candidate(entry.registered, "baseline", base, entry.registered)
    model = network_of_entry(base, entry)
    scaled = [key for key in MULTIPLIERS if getattr(entry, key) != 1.0]
    dimension = "baseline" if not scaled else scaled[0] if len(scaled) == 1 else "compound"
    terms = [short_name(model.name), *(f"{MULTIPLIERS[key]}={getattr(entry, key):g}" for key in scaled)]
    return Candidate(" ".join(terms), dimension, model, None)


def train_config(config: schema.Config, model: schema.Model) -> schema.Config:
    """The configuration of a candidate's training; any flow with the same request shares the job."""
    return dataclasses.replace(config, model=model, recipe=config.explain.recipe)


@task(task_run_name="images of the maps", **policy.BOOKKEEPING)
async def start_gallery(config: schema.Config, shards: ShardResult, parent_run: str) -> str:
    """Reads the images once, so that a wrong id fails before any training, and opens the parent MLflow run.

    Returns:
        The id of the run.

    Raises:
        ConfigError: Val has no such image.
    """
    return await asyncio.to_thread(_start, config, shards, parent_run)


def _start(config: schema.Config, shards: ShardResult, parent_run: str) -> str:
    from infra.tracking import runs

    _, images = read_images(config.explain, shards)
    if not config.explain.images and len(images.ids) < config.explain.count:
        log.info("maps of %d images: val of %s has no more classes", len(images.ids), shards.name)
    request = {"explain": compose.to_dict(config.explain), "data": compose.to_dict(config.data)}
    key = work_key("explain", request)
    return runs.start_run(
        config.experiment,
        "class activation maps",
        key,
        parent=parent_run or None,
        params={**request, "image_ids": images.ids},
        tags={"role": "explain", "profile": config.profile},
    )


def read_images(options: schema.Explain, shards: ShardResult) -> tuple[Manifest, SampleSelection]:
    """The val images that all networks are shown; the same for the same shards."""
    from models.data.loading import selection
    from models.data.shards import manifest as manifests

    manifest = manifests.load_verified(shards.manifest_uri, shards.manifest_sha256, shards.left_out)
    ids = options.images or selection.distinct_classes(manifest, SPLIT, options.count)
    return manifest, selection.read(manifest, shards.manifest_uri, SPLIT, ids)


@task(task_run_name="draw maps", **policy.BOOKKEEPING)
async def record_gallery(
    config: schema.Config,
    shards: ShardResult,
    mlflow_run: str,
    candidates: list[Candidate],
    trained: list[GalleryNetwork | BaseException],
) -> GalleryResult:
    """Draws each network's map of the true class of each image, for the report and MLflow.

    Returns:
        The maps; ``missing`` lists the networks that failed.
    """
    done = [result for result in trained if isinstance(result, GalleryNetwork)]
    failed = [(c.name, e) for c, e in zip(candidates, trained, strict=True) if isinstance(e, BaseException)]
    missing = [f"{name}: {first_line(error)}" for name, error in failed]
    return await asyncio.to_thread(_record, config, shards, mlflow_run, done, missing)


def _read_answers(done: Sequence[GalleryNetwork]) -> dict[str, NDArray[np.bool_]]:
    """Which images of val each network classified correctly, by its name, where its training stored that."""
    from models.training import per_image

    stored = {
        t.name: per_image.read(t.job_uri, {"correct_sha256": t.correct_sha256, "class_total": [t.n_val]}) for t in done
    }
    return {name: correct for name, correct in stored.items() if correct is not None}


def _record(
    config: schema.Config, shards: ShardResult, mlflow_run: str, done: list[GalleryNetwork], missing: list[str]
) -> GalleryResult:
    from infra.tracking import runs

    inputs = report_results.digests([shards]) | {f"weights of {t.name}": t.weights_sha256 for t in done}
    address = runs.run_url(mlflow_run)
    kept = report_results.reusable_part(config, GalleryResult, inputs)
    if kept is not None and not missing and kept.mlflow_url == address:
        runs.finish_run(mlflow_run, "FINISHED", {})
        return dataclasses.replace(kept, found=len(done))
    from models.experiments.gallery import compare_methods, draw, save, summarize

    manifest, images = read_images(config.explain, shards)
    classes, usual = manifest.classes, config.data.augment
    drawn = [draw(t.model, t.weights_uri, t.weights_sha256, images, len(classes), t.augment or usual) for t in done]
    labels = [classes[label] for label in images.labels]
    summed = summarize(images.ids, labels, done, drawn, classes)
    result = dataclasses.replace(
        summed,
        comparisons=compare_methods(summed.models, _read_answers(done)),
        data=shards.name,
        missing=tuple(missing),
        command=f"effnet explain profile={config.profile}",
        mlflow_url=address,
    )
    with tempfile.TemporaryDirectory(prefix="effnet-maps-") as scratch:
        for path in save(Path(scratch), images.ids, done, drawn):
            runs.log_file(mlflow_run, path, "maps")
    runs.finish_run(mlflow_run, "FAILED" if missing else "FINISHED", {})
    report_results.publish_part(config, "maps", result, inputs)
    return result
