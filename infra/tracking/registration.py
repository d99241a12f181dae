"""Registers a trained network in the model registry, once per set of weights.

The sha256 of the weights is a tag, and every step can be repeated after a crash: search the version, search the
complete model, pack, upload, mark READY, create the version with its tags. Aliases are moved by ``champions.py``.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.text import escaped
from infra.tracking import package, registry
from infra.tracking.client import connection, library
from infra.tracking.registry import CONFIG, CONFIG_TAG, WEIGHTS, WEIGHTS_TAG, Version, sha256_of

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from numpy.typing import NDArray

ABANDONED_S = 3600.0  # an upload takes minutes at most: a model that is incomplete for longer has lost its process
_REGISTER = threading.Lock()  # search-or-create must not interleave, and torch.export is not thread-safe


@dataclass(frozen=True)
class Loaded:
    """A network that is to be packed.

    Attributes:
        module: An ``nn.Module`` in evaluation mode, on the CPU (``models.networks.export.serving_module``).
        example: Images ``[2, 3, R, R]``.
        logits: The module's output for them, ``[2, classes]``; the packed program must return the same.
    """

    module: Any
    example: NDArray[np.float32]
    logits: NDArray[np.float32]


def register(
    run_id: str,
    name: str,
    *,
    load: Callable[[], Loaded],
    files: Path,
    tags: Mapping[str, str],
    first_tags: Mapping[str, str] | None = None,
) -> Version:
    """Registers a network as a version of the model ``name``, or returns the version with the same files.

    The same weights with another ``config.json``, as a corrected image size, are a new version.

    Args:
        run_id: The run that trained the network.
        name: Name of the registered model, created if missing.
        load: Loads the network from ``files``; called only if there is no version with these files.
        files: The folder with ``weights.safetensors`` and ``config.json``.
        tags: Tags of the version.
        first_tags: Initial tags of a new version; not applied to an existing one.

    Raises:
        ConfigError: The model has versions, and effnet made none of them.
        ArtifactError: The output of the packed program differs from that of the network, or ``load`` failed.
        TransientError: MLflow does not answer; the same call can resume later.
    """
    tags = {key: escaped(value) for key, value in tags.items()}
    digests = {WEIGHTS_TAG: sha256_of(files / WEIGHTS), CONFIG_TAG: sha256_of(files / CONFIG)}
    with connection() as client, _REGISTER:
        existing = _find_version(client, name, digests)
        if existing is None:
            registry.require_model_of_effnet(name)
            model_id = _find_complete_model(client, run_id, name, digests)
            if model_id is None:
                model_id = _upload(client, run_id, name, digests, load(), files)
            version = _create_version(client, run_id, name, model_id, {**(first_tags or {}), **tags, **digests})
        else:
            version = existing
        for key, value in tags.items():
            if version.tags.get(key) != value:
                client.set_model_version_tag(name, version.version, key, value)
        return replace(registry.resolve_version(f"{name}/{version.version}"), reused=existing is not None)


def _find_version(client: MlflowClient, name: str, digests: Mapping[str, str]) -> ModelVersion | None:
    """Returns the first version with these files, so that two processes that both created one agree."""
    same = " AND ".join([f"name = '{name}'", *(f"tags.{key} = '{digests[key]}'" for key in (WEIGHTS_TAG, CONFIG_TAG))])
    return min(client.search_model_versions(same), key=lambda version: int(version.version), default=None)


def _find_complete_model(client: MlflowClient, run_id: str, name: str, digests: Mapping[str, str]) -> str | None:
    """Returns the id of a complete model without a version."""
    experiment = client.get_run(run_id).info.experiment_id
    same = " AND ".join([f"name = '{name}'", *(f"tags.{k} = '{v}'" for k, v in digests.items())])
    logged = client.search_logged_models([experiment], same)
    return next((str(model.model_id) for model in logged if model.status == "READY"), None)


def _delete_abandoned(client: MlflowClient, experiment: str, name: str) -> None:
    """Deletes what uploads of this name left that died: younger ones may be uploads of other processes.

    Those that are not among the newest hundred models of the name were seen by earlier registrations.
    """
    limit = 1000 * (time.time() - ABANDONED_S)
    for logged in client.search_logged_models([experiment], f"name = '{name}'"):
        if logged.status != "READY" and WEIGHTS_TAG in logged.tags and logged.creation_timestamp < limit:
            client.delete_logged_model(logged.model_id)


def _upload(
    client: MlflowClient, run_id: str, name: str, digests: Mapping[str, str], loaded: Loaded, files: Path
) -> str:
    """Packs the model and logs it to the run; marks it READY after all files are uploaded."""
    from mlflow.entities import LoggedModelOutput

    with tempfile.TemporaryDirectory(prefix="effnet-model-") as scratch:
        folder = Path(scratch) / "model"
        model = package.build(folder, files, loaded.module, loaded.example, loaded.logits)
        experiment = client.get_run(run_id).info.experiment_id
        _delete_abandoned(client, experiment, name)
        logged = client.create_logged_model(experiment, name, run_id, tags=dict(digests))
        model.model_id, model.run_id, model.artifact_path = logged.model_id, run_id, logged.artifact_location
        package.save(folder, model)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _create_version(
    client: MlflowClient, run_id: str, name: str, model_id: str, tags: Mapping[str, str]
) -> ModelVersion:
    try:
        client.create_registered_model(name)
    except library().MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # The tags are part of the creation: a version without its digest never exists.
    created = client.create_model_version(name, f"models:/{model_id}", run_id, dict(tags), model_id=model_id)
    first = _find_version(client, name, tags) or created
    if first.version != created.version:
        client.delete_model_version(name, created.version)
    # Only for the UI, which uses it to link from the run's model to the version.
    link = json.dumps([{"name": name, "version": int(first.version)}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
    return first
