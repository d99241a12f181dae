"""From a finished training job to a version in the registry, and from there back into the object store."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from infra import store
from infra.errors import ArtifactError, NotFoundError, first_line
from models.results import Registered, TrainResult
from tasks import policy
from tasks.promote import FIRST_TAGS, LEFT_OUT

if TYPE_CHECKING:
    from infra.tracking.registry import Version

CANDIDATE = "candidate"
WEIGHTS = "weights.safetensors"


@task(task_run_name="register {name}", **policy.BOOKKEEPING)
async def register(
    name: str, result: TrainResult, model: schema.Model, data: schema.Data, manifest_uri: str
) -> Registered:
    """Registers the job's weights as a candidate of ``name``; ``tasks.promote.judge`` decides what becomes of it.

    What was trained without some of the data's shards (``data.leave_out``) says so in a tag.

    Raises:
        ArtifactError: the weights in the store are not those that the job wrote.
        TransientError: MLflow or the store do not answer; the same call goes on later.
    """
    return await asyncio.to_thread(_register, name, result, model, data, manifest_uri)


def _register(name: str, result: TrainResult, model: schema.Model, data: schema.Data, manifest_uri: str) -> Registered:
    from infra.tracking import registry
    from models.data.shards import manifest as manifests

    manifest_sha256, manifest = manifests.load(manifest_uri)
    missing = len(manifest.table) - len(manifests.exclude_shards(manifest, data.leave_out).table)
    left_out = {LEFT_OUT: str(missing)} if missing else {}
    with tempfile.TemporaryDirectory(prefix="effnet-register-") as scratch:
        store.download(result.weights_uri, Path(scratch) / WEIGHTS)
        sha256 = registry.sha256_of(Path(scratch) / WEIGHTS)
        if sha256 != result.weights_sha256:
            raise ArtifactError(
                f"{result.weights_uri} is damaged: sha256 {sha256[:12]}, the job wrote "
                f"{result.weights_sha256[:12]}; delete {result.job_uri} and train again"
            )
        version = new_version(
            result.mlflow_run,
            name,
            Path(scratch),
            model,
            result.resolution,
            manifest.classes,
            data.augment.eval_crop_pad,
            _tags(result, manifest.name, manifest_sha256) | left_out,
        )
    return Registered(name, version.version, version.aliases, version.reused)


def new_version(
    run_id: str,
    name: str,
    files: Path,
    model: schema.Model,
    resolution: int,
    class_names: Sequence[str],
    crop_pad: int,
    tags: Mapping[str, str],
) -> Version:
    """The weights in ``files`` as a version of ``name``, candidate at once; nothing is registered if they do not fit.

    Args:
        run_id: MLflow run that they come from.
        name: in the registry.
        files: folder with ``weights.safetensors``; ``config.json`` is written beside it.
        model: the network that they are of.
        resolution: side of its images in pixels.
        class_names: in the order of the logits.
        crop_pad: see ``models.networks.export.config_json``.
        tags: of the version.

    Raises:
        ArtifactError: the weights are damaged or do not fit.
        TransientError: MLflow does not answer; the same call goes on later.
    """
    from infra.tracking import registration
    from models.networks import export
    from models.networks.efficientnet.preprocessing import MEAN_RGB, STDDEV_RGB

    described = export.config_json(
        model,
        resolution=resolution,
        class_names=class_names,
        mean=[value / 255 for value in MEAN_RGB],
        std=[value / 255 for value in STDDEV_RGB],
        crop_pad=crop_pad,
    )
    (files / "config.json").write_text(described)
    network = export.load_network(files / WEIGHTS, json.loads(described))
    module, images = export.serving_module(network), export.example(resolution)
    return registration.register(
        run_id,
        name,
        module=module,
        example=images,
        logits=export.logits(module, images),
        files=files,
        tags=tags,
        first_tags=FIRST_TAGS,
        aliases=[CANDIDATE],
    )


def _tags(result: TrainResult, data_name: str, manifest_sha256: str) -> dict[str, str]:
    return {
        "data": data_name,
        "data_manifest_sha256": manifest_sha256,
        "val_top1": f"{result.top1:.4f}",
        "val_n": str(result.n_val),
        "params": str(result.params),
        "multiply_adds": str(result.multiply_adds),
        "resolution": str(result.resolution),
        "job_uri": result.job_uri,
    }


@task(task_run_name="fetch {ref}", **policy.BOOKKEEPING)
async def fetch_registered(ref: str, storage: str) -> tuple[schema.Model, tuple[str, str], str]:
    """Brings a registered version's weights into the object store, under their digest.

    Returns:
        The network's configuration, the uri and sha256 of the weights, and ``NAME/VERSION``.

    Raises:
        ConfigError: no such model or version; the message names the nearest.
        ArtifactError: the registry's file is not what was registered.
    """
    return await asyncio.to_thread(_fetch, ref, storage)


def _fetch(ref: str, storage: str) -> tuple[schema.Model, tuple[str, str], str]:
    from infra.tracking import registry

    version = registry.resolve_version(ref)
    exact = f"{version.name}/{version.version}"
    with tempfile.TemporaryDirectory(prefix="effnet-fetch-") as scratch:
        path, described = registry.fetch_weights(exact, Path(scratch))
        try:
            model = schema.Model(**described["model"])
        except (KeyError, TypeError, ValueError) as error:
            message = f"{exact}: its config.json does not describe a network: {first_line(error)}"
            raise ArtifactError(message) from error
        sha256 = version.tags["weights_sha256"]
        uri = store.join(storage, "weights", f"{sha256}.safetensors")
        if not _holds(uri, sha256, Path(scratch) / "stored"):
            store.ensure_root(storage)
            store.upload(path, uri)
    return model, (uri, sha256), exact


def _holds(uri: str, sha256: str, scratch: Path) -> bool:
    """Whether an object has the content that its name promises; a damaged one is written again."""
    from infra.tracking import registry

    try:
        store.download(uri, scratch)
    except NotFoundError:
        return False
    return registry.sha256_of(scratch) == sha256
