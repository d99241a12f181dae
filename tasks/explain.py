"""Class activation maps as tasks: which networks, which images, the maps, and where they go."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from conf import compose, schema
from infra.errors import ConfigError, first_line
from models.results import EvalResult, ShardResult, TrainResult
from tasks import policy
from tasks.explain_gallery import GalleryNetwork, facts, save
from tasks.report import results as report_results
from tasks.train import short_name

if TYPE_CHECKING:
    from models.data.loading.selection import SampleSelection
    from models.data.shards.manifest import Manifest

SPLIT = "val"
MULTIPLIERS = {"depth": "d", "width": "w", "resolution": "r"}  # in the paper's letters


@dataclass(frozen=True)
class Candidate:
    """A network whose maps are wanted."""

    name: str  # as people see it; no two are alike
    dimension: str  # baseline | depth | width | resolution | compound
    model: schema.Model
    registered: str | None  # the reference to take it from, instead of training it

    def trained(self, result: TrainResult) -> GalleryNetwork:
        """The candidate as its job left it."""
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
        )

    def fetched(self, model: schema.Model, weights: tuple[str, str], result: EvalResult) -> GalleryNetwork:
        """The candidate as the registry has it, evaluated on our data."""
        return GalleryNetwork(self.name, self.dimension, model, *weights, result.top1, result.n, "", found=True)


@task(task_run_name="networks of the maps", **policy.BOOKKEEPING)
async def candidates(config: schema.Config) -> list[Candidate]:
    """Lists the networks, before anything costs time.

    Raises:
        ConfigError: a network that does not exist, or one that is named twice.
    """
    return await asyncio.to_thread(listed, config.explain)


def listed(wanted: schema.Explain) -> list[Candidate]:
    """See ``candidates``."""
    from models.networks.build import build_model

    found: dict[str, Candidate] = {}
    for each in wanted.models:
        one = _candidate(wanted.model, each)
        if one.name in found:
            raise ConfigError(f"explain.models names {one.name!r} twice")
        if one.registered is None:
            build_model(one.model, 1, device="meta")  # refuses an unknown name
        found[one.name] = one
    return list(found.values())


def _candidate(base: schema.Model, each: schema.GalleryEntry) -> Candidate:
    if each.registered is not None:
        return Candidate(each.registered, "baseline", base, each.registered)
    multiplied = {key: getattr(base, key) * getattr(each, key) for key in MULTIPLIERS}
    model = dataclasses.replace(base, name=each.network or base.name, **multiplied)
    scaled = [key for key in MULTIPLIERS if getattr(each, key) != 1.0]
    dimension = "baseline" if not scaled else scaled[0] if len(scaled) == 1 else "compound"
    words = [short_name(model.name), *(f"{MULTIPLIERS[key]}={getattr(each, key):g}" for key in scaled)]
    return Candidate(" ".join(words), dimension, model, None)


def train_overrides(config: schema.Config, model: schema.Model) -> list[str]:
    """A candidate's training in the words of the command line: whatever flow asks the same finds the same job."""
    return [*compose.to_overrides("model", model), *compose.to_overrides("recipe", config.explain.recipe)]


@task(task_run_name="images of the maps", **policy.BOOKKEEPING)
async def start_gallery(config: schema.Config, shards: ShardResult, parent_run: str) -> str:
    """Reads the images once, so that a wrong id costs no training, and opens the MLflow run of all the trainings.

    Returns:
        The run's id.

    Raises:
        ConfigError: val has not so many classes, or not such an image.
    """
    return await asyncio.to_thread(_start, config, shards, parent_run)


def _start(config: schema.Config, shards: ShardResult, parent_run: str) -> str:
    from infra.tracking import runs

    _, images = chosen_images(config.explain, shards)
    asked = {"explain": compose.to_dict(config.explain), "data": compose.to_dict(config.data)}
    key = "explain-" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
    return runs.start_run(
        config.experiment,
        "class activation maps",
        key,
        parent=parent_run or None,
        params={**asked, "image_ids": images.ids},
        tags={"role": "explain", "profile": config.profile},
    )


def chosen_images(wanted: schema.Explain, shards: ShardResult) -> tuple[Manifest, SampleSelection]:
    """The images of val that all networks are asked about; the same for the same shards."""
    from models.data.loading import selection
    from models.data.shards import manifest as manifests

    manifest = manifests.load_verified(shards.manifest_uri, shards.manifest_sha256)
    ids = wanted.images or selection.distinct_classes(manifest, SPLIT, wanted.count)
    return manifest, selection.read(manifest, shards.manifest_uri, SPLIT, ids)


@task(task_run_name="draw maps", **policy.BOOKKEEPING)
async def record_gallery(
    config: schema.Config,
    shards: ShardResult,
    mlflow_run: str,
    wanted: list[Candidate],
    trained: list[GalleryNetwork | BaseException],
) -> dict[str, Any]:
    """Draws every network's map of the true class of every image, for the report and for MLflow.

    Returns:
        The report's part; a network that failed is named in its ``missing``.

    Raises:
        EffnetError: all failed; the first one's error.
    """
    done = [each for each in trained if isinstance(each, GalleryNetwork)]
    failed = [(c.name, e) for c, e in zip(wanted, trained, strict=True) if isinstance(e, BaseException)]
    if not done:
        raise failed[0][1]
    missing = [f"{name}: {first_line(error)}" for name, error in failed]
    return await asyncio.to_thread(_record, config, shards, mlflow_run, done, missing)


def _record(
    config: schema.Config, shards: ShardResult, mlflow_run: str, done: list[GalleryNetwork], missing: list[str]
) -> dict[str, Any]:
    from infra.tracking import runs
    from models.experiments.gallery import draw

    manifest, images = chosen_images(config.explain, shards)
    pad, classes = config.data.augment.eval_crop_pad, manifest.classes
    drawn = [draw(t.model, t.weights_uri, t.weights_sha256, images, len(classes), pad) for t in done]
    labels = [classes[label] for label in images.labels]
    part = {
        "data": shards.name,
        **facts(images.ids, labels, done, drawn, classes),
        "missing": missing,
        "found": sum(each.found for each in done),
        "command": f"effnet explain profile={config.profile}",
        "mlflow_url": runs.run_url(mlflow_run),
    }
    with tempfile.TemporaryDirectory(prefix="effnet-maps-") as scratch:
        for path in save(Path(scratch), images.ids, done, drawn):
            runs.log_file(mlflow_run, path, "maps")
    runs.finish_run(mlflow_run, "FAILED" if missing else "FINISHED", {})
    return report_results.publish_part(config, "maps", part, report_results.digests([shards]))
