"""Registers the weights of a finished job as a model version, and copies registered weights to the object store."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from conf.data_set import EvalTransform
from conf.text import logger
from infra import store
from infra.errors import ArtifactError, NotFoundError, PermanentError, first_line
from infra.launch.job import read_request
from infra.store.json_objects import NUMBER, read_lines
from models.data.sources.catalog import DATA_SETS
from models.results import Registered, TrainResult
from models.statistics import interval_95
from tasks import policy
from tasks.metrics import split_result
from tasks.registry.answers import CardAnswers, collect_answers
from tasks.registry.card import Trained, lineage_json, trained_card
from tasks.registry.family import describe_family
from tasks.registry.promote import LEFT_OUT
from tasks.registry.verdict import FIRST_TAGS, VAL, VAL_SHA256
from tasks.report.charts.curves import draw_curves

if TYPE_CHECKING:
    from infra.tracking.cards import DataSet
    from infra.tracking.registry import Version
    from models.data.shards.manifest import Manifest

log = logger()
WEIGHTS = "weights.safetensors"
LICENSE, ORIGIN = "license", "origin"  # tags of a version; the latter of imported weights alone


@task(task_run_name="check the registered model {name}", **policy.BOOKKEEPING)
async def require_name(name: str) -> None:
    """Checks, before the job whose result is registered, that ``name`` may get a version.

    Raises:
        ConfigError: MLflow has a model of this name that is not effnet's.
        TransientError: MLflow does not respond; the same call resumes later.
    """
    from infra.tracking import registry

    await asyncio.to_thread(registry.require_model_of_effnet, name)


@task(task_run_name="register {name}", **policy.BOOKKEEPING)
async def register(
    name: str, result: TrainResult, model: schema.Model, data: schema.Data, manifest_uri: str, storage: str
) -> Registered:
    """Registers the job's weights as the challenger of ``name`` with its card; ``judge`` (promote.py) decides on it.

    A version trained with some shards excluded (``data.leave_out``) has a tag with the number of missing samples, and
    one with a frozen val (``data.frozen_val``) has tags with its name and digest.

    Raises:
        ArtifactError: The weights in the store are not those that the job wrote.
        TransientError: MLflow or the store does not respond; the same call resumes later.
    """
    return await asyncio.to_thread(_register, name, result, model, data, manifest_uri, storage)


def _register(
    name: str, result: TrainResult, model: schema.Model, data: schema.Data, manifest_uri: str, storage: str
) -> Registered:
    from infra.tracking import cards, registry
    from infra.tracking.cards import DataSet
    from models.data.shards import manifest as manifests

    manifest_sha256, manifest = manifests.load(manifest_uri)
    missing = len(manifest.table) - len(manifests.exclude_shards(manifest, data.leave_out).table)
    data_tags = ({LEFT_OUT: str(missing)} if missing else {}) | _describe_val(data, manifest_uri)
    with tempfile.TemporaryDirectory(prefix="effnet-register-") as scratch:
        store.download(result.weights_uri, Path(scratch) / WEIGHTS)
        sha256 = registry.sha256_of(Path(scratch) / WEIGHTS)
        if sha256 != result.weights_sha256:
            raise ArtifactError(
                f"{result.weights_uri} is damaged: sha256 {sha256[:12]}, the job wrote "
                f"{result.weights_sha256[:12]}; delete {result.job_uri} and train again"
            )
        job = read_request(result.job_uri)
        license_name = find_license(job)
        description = describe_network(model, result.resolution, manifest.classes, data.augment.evaluation)
        tags = _build_tags(result, manifest.name, manifest_sha256) | data_tags
        tags |= {LICENSE: license_name} if license_name else {}
        version = new_version(result.mlflow_run, name, Path(scratch), description, tags, storage)
    if not (version.reused and cards.is_described(version.name, version.version)):
        of_data = DataSet(manifest.name, manifest_sha256, manifest_uri)
        _publish_card(version, result, of_data, manifest, job, license_name)
    return Registered(name, version.version, version.aliases, version.reused)


def find_license(job: schema.Job) -> str:
    """Returns the license of trained weights as an SPDX expression; empty unless all that they are made from has one.

    That is the license of the images, where they were published under one, and that of imported weights from which the
    training started. What a license of images demands for weights is disputed, so that none is claimed that is laxer.
    """
    from infra.tracking import registry

    known = DATA_SETS.get(job.data_name)
    licenses = [known.license if known else ""]
    if job.init_weights_sha256 is not None:
        # Of weights that were trained here an earlier version of this code stated a license that it could not know.
        imported = [one for one in registry.find_weights(job.init_weights_sha256) if ORIGIN in one.tags]
        licenses.append(imported[0].tags.get(LICENSE, "") if imported else "")
    return " AND ".join(dict.fromkeys(licenses)) if all(licenses) else ""


def _describe_val(data: schema.Data, manifest_uri: str) -> dict[str, str]:
    """Tags of the frozen val of a data set; none if it has none."""
    from models.data.shards import frozen_val

    if data.frozen_val is None:
        return {}
    folder = manifest_uri.rsplit("/", 2)[0]
    val = frozen_val.load(folder, data.frozen_val)
    if val is None:
        raise ArtifactError(f"{frozen_val.uri_of(folder, data.frozen_val)} is missing: it lists the images of val")
    return {VAL: data.frozen_val, VAL_SHA256: val.sha256}


def describe_network(model: schema.Model, resolution: int, class_names: Sequence[str], transform: EvalTransform) -> str:
    """Returns the ``config.json`` of a network: itself, its classes and its input.

    Args:
        model: Configuration of the network.
        resolution: Image side in pixels.
        class_names: Class names in the order of the logits.
        transform: Transform of evaluation.
    """
    from models.networks.description import MEAN_RGB, STDDEV_RGB, config_json

    return config_json(
        model,
        resolution=resolution,
        class_names=class_names,
        mean=[value / 255 for value in MEAN_RGB],
        std=[value / 255 for value in STDDEV_RGB],
        transform=transform,
    )


def new_version(
    run_id: str, name: str, files: Path, description: str, tags: Mapping[str, str], storage: str
) -> Version:
    """Registers the weights in ``files`` as the challenger of ``name``, after checking that new ones load.

    Weights that are registered already do not take the alias back from a newer version.

    Args:
        run_id: The MLflow run that produced the weights.
        name: Name of the registered model.
        files: Folder with ``weights.safetensors``; ``config.json`` is written beside it.
        description: Content of ``config.json`` (``describe_network``).
        tags: Tags of the version.
        storage: Root uri of the audit chain.

    Raises:
        ArtifactError: The weights are damaged or do not fit; nothing is registered.
        TransientError: MLflow does not respond; the same call resumes later.
    """
    from infra.tracking import champions, registration, registry
    from infra.tracking.registry import WEIGHTS_TAG

    (files / "config.json").write_text(description, encoding="utf-8")

    def load() -> registration.Loaded:
        from models.networks import export

        described = json.loads(description)
        network = export.load_network(files / WEIGHTS, described)
        module, images = export.serving_module(network), export.example(described["input"]["resolution"])
        return registration.Loaded(module, images, export.logits(module, images))

    version = registration.register(run_id, name, load=load, files=files, tags=tags, first_tags=FIRST_TAGS)
    store.ensure_root(storage)
    why = f"registered by MLflow run {run_id}"
    champions.move_challenger(storage, name, version.version, why, {WEIGHTS_TAG: version.tags[WEIGHTS_TAG]})
    # Also where another process has completed this move: the aliases from before it are stale.
    return replace(registry.resolve_version(f"{name}/{version.version}"), reused=version.reused)


def _build_tags(result: TrainResult, data_name: str, manifest_sha256: str) -> dict[str, str]:
    return {
        "variant": result.model,
        "dataset": data_name,
        "top1": f"{result.top1:.2f}",
        "ci95": f"{interval_95(result.top1, result.n_val):.2f}",
        "val_n": str(result.n_val),
        "params": str(result.params),
        "multiply_adds": str(result.multiply_adds),
        "resolution": str(result.resolution),
        "job_uri": result.job_uri,
        "data_manifest_sha256": manifest_sha256,
    }


def _publish_card(
    version: Version, result: TrainResult, data: DataSet, manifest: Manifest, job: schema.Job, license_name: str
) -> None:
    """Describes a version and its model on their pages in MLflow."""
    from infra.tracking import cards, queries
    from models.data.shards.manifest import exclude_shards

    tags = queries.read_run(result.mlflow_run).tags
    try:
        answers = collect_answers(result, job, exclude_shards(manifest, job.leave_out), data.uri)
    except PermanentError as error:  # a damaged image does not keep a version from being judged
        log.warning("%s/%d: its card has no pictures: %s", version.name, version.version, first_line(error))
        answers = CardAnswers()
    machine = {k.removeprefix("machine."): v for k, v in sorted(tags.items()) if k.startswith("machine.") and v}
    trained = Trained(
        f"{version.name}/{version.version}",
        result,
        job,
        manifest,
        data.uri,
        data.sha256,
        tags.get("mlflow.source.git.commit", ""),
        machine,
        answers,
        license_name,
    )
    text = trained_card(trained)
    rows = read_lines(store.join(result.job_uri, "metrics.jsonl"), step=NUMBER)
    files = {"card.md": text, "lineage.json": lineage_json(trained), "curves.svg": draw_curves(rows), **answers.files}
    metrics, _ = split_result(vars(result))
    cards.describe_version(
        version.name, version.version, text, {name: body for name, body in files.items() if body}, metrics, data
    )
    describe_family(version.name)


@task(task_run_name="fetch {ref}", **policy.BOOKKEEPING)
async def fetch_registered(ref: str, storage: str) -> tuple[schema.Model, tuple[str, str], str]:
    """Copies the weights of a registered version to the object store, under their digest, unless they are there.

    Returns:
        The network's configuration, the uri and sha256 of the weights, and ``NAME/VERSION``.

    Raises:
        ConfigError: No such model or version; the message names the closest.
        ArtifactError: The file in the registry differs from what was registered.
    """
    return await asyncio.to_thread(_fetch, ref, storage)


def _fetch(ref: str, storage: str) -> tuple[schema.Model, tuple[str, str], str]:
    from infra.tracking import registry

    version = registry.resolve_version(ref)
    exact = f"{version.name}/{version.version}"
    try:
        model = schema.Model(**registry.describe(version)["model"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"{exact}: its config.json does not describe a network: {first_line(error)}"
        raise ArtifactError(message) from error
    sha256 = version.tags["weights_sha256"]
    uri = store.join(storage, "weights", f"{sha256}.safetensors")
    with tempfile.TemporaryDirectory(prefix="effnet-fetch-") as scratch:
        if not _has_digest(uri, sha256, Path(scratch) / "stored"):
            path, _ = registry.fetch_weights(exact, Path(scratch))
            store.ensure_root(storage)
            store.upload(path, uri)
    return model, (uri, sha256), exact


def _has_digest(uri: str, sha256: str, scratch: Path) -> bool:
    """Whether an object exists and its content has the given digest; a damaged object is written again."""
    from infra.tracking import registry

    try:
        store.download(uri, scratch)
    except NotFoundError:
        return False
    return registry.sha256_of(scratch) == sha256
