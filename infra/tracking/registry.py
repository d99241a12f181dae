"""The model registry: find a version, move an alias, fetch weights that are proven to be the registered ones.

Versions are made in ``registration.py``; what a version holds stands in ``model_package.py``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from infra.errors import ArtifactError, ConfigError
from infra.tracking.client import address, connection, library
from infra.tracking.package import CONFIG, FILES_FOLDER, WEIGHTS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

CHAMPION = "champion"
WEIGHTS_TAG, CONFIG_TAG = "weights_sha256", "config_sha256"
NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second: no such alias
_REFERENCE = re.compile(r"(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>[0-9]+))")


@dataclass(frozen=True)
class Version:
    """A version in the registry. ``reused``: ``register`` found it and made no new one."""

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    reused: bool = False


def promote(name: str, version: int, alias: str) -> None:
    """Moves an alias to a version in one step; a reader sees the old or the new one.

    Raises:
        ConfigError: no such model or version.
    """
    with connection() as client:
        try:
            client.set_registered_model_alias(name, alias, str(version))
        except library().MlflowException as error:
            _explain(client, error, name, f"version {version}")
            raise


def champion(name: str) -> Version | None:
    """The version that ``NAME@champion`` means, None where there is no such model or alias."""
    with connection() as client:
        try:
            return to_version(client.get_model_version_by_alias(name, CHAMPION))
        except library().MlflowException as error:
            if error.error_code in NOT_FOUND:
                return None
            raise


def versions(name: str) -> list[Version]:
    """All versions of a registered model, oldest first; the aliases of each are not filled in."""
    with connection() as client:
        listed, page = [], None
        while True:
            batch = client.search_model_versions(f"name = '{name}'", page_token=page)
            listed += [to_version(entry) for entry in batch]
            if not (page := batch.token):
                return sorted(listed, key=lambda version: version.version)


def set_tags(name: str, version: int, tags: Mapping[str, str]) -> None:
    """Sets tags of a version, in order."""
    with connection() as client:
        for key, value in tags.items():
            client.set_model_version_tag(name, str(version), key, value)


def resolve_version(ref: str) -> Version:
    """Finds what ``NAME@ALIAS`` or ``NAME/VERSION`` means.

    Raises:
        ConfigError: it means nothing; the message names the nearest model, or the model's aliases.
    """
    match = _REFERENCE.fullmatch(ref)
    if match is None:
        raise ConfigError(f"a registered model is NAME@ALIAS or NAME/VERSION, not {ref!r}")
    name, alias, number = match["name"], match["alias"], match["version"]
    with connection() as client:
        try:
            if alias is not None:
                return to_version(client.get_model_version_by_alias(name, alias))
            return to_version(client.get_model_version(name, number))
        except library().MlflowException as error:
            wanted = f"alias {alias!r}" if alias is not None else f"version {number}"
            _explain(client, error, name, wanted)
            raise


def fetch_weights(ref: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Downloads the weights and the description of a version, and believes them only with the right digest.

    Args:
        ref: ``NAME@ALIAS`` or ``NAME/VERSION``.
        folder: made on need; files that are already there and right are not downloaded again.

    Returns:
        The path of ``weights.safetensors``, and what ``config.json`` says.

    Raises:
        ConfigError: no such version.
        ArtifactError: it was not registered by us, or a file is not the one that was registered.
    """
    found = resolve_version(ref)
    for file, tag in ((WEIGHTS, WEIGHTS_TAG), (CONFIG, CONFIG_TAG)):
        _fetch_file(found, file, tag, folder)
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise ArtifactError(f"{ref}: its {CONFIG} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{ref}: its {CONFIG} does not hold a JSON object")
    return folder / WEIGHTS, config


def describe(version: Version) -> dict[str, Any]:
    """What the ``config.json`` of a version says, without a download of its weights.

    Raises:
        ArtifactError: the version was not registered by us, or the file is not the one that was registered.
    """
    with tempfile.TemporaryDirectory(prefix="effnet-describe-") as scratch:
        config: dict[str, Any] = json.loads(_fetch_file(version, CONFIG, CONFIG_TAG, Path(scratch)).read_text())
    return config


def _fetch_file(version: Version, file: str, tag: str, folder: Path) -> Path:
    if tag not in version.tags:
        raise ArtifactError(f"{version.name}/{version.version} has no tag {tag}: it was not registered by effnet")
    _fetch(f"models:/{version.name}/{version.version}/{FILES_FOLDER}/{file}", version.tags[tag], folder / file)
    return folder / file


def _fetch(uri: str, sha256: str, path: Path) -> None:
    if path.exists() and sha256_of(path) == sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with connection(), tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        # MLflow writes files of its own beside what it is asked for.
        loaded = Path(library().artifacts.download_artifacts(uri, dst_path=scratch, tracking_uri=address()))
        actual = sha256_of(loaded)
        if actual != sha256:
            raise ArtifactError(f"{uri} is damaged: sha256 {actual[:12]}, registered as {sha256[:12]}")
        loaded.replace(path)


def model_url(name: str, version: int) -> str:
    """Where a person sees the version."""
    return f"{address()}/#/models/{quote(name, safe='')}/versions/{version}"


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _explain(client: MlflowClient, error: MlflowException, name: str, wanted: str) -> None:
    """Raises what a person needs to know if MLflow found nothing; any other error is the caller's."""
    if error.error_code not in NOT_FOUND:
        return
    models = {model.name: model for model in client.search_registered_models(max_results=1000)}
    if name not in models:
        near = difflib.get_close_matches(name, models, n=3, cutoff=0.0)
        nearest = f"nearest: {', '.join(near)}" if near else "the registry is empty"
        raise ConfigError(f"no registered model {name!r}; {nearest}") from error
    aliases = ", ".join(f"{alias} = {number}" for alias, number in models[name].aliases.items()) or "none"
    raise ConfigError(f"{name} has no {wanted}; aliases: {aliases}") from error


def to_version(found: ModelVersion) -> Version:
    """MLflow's version as ours."""
    return Version(found.name, int(found.version), found.run_id, tuple(sorted(found.aliases)), dict(found.tags))
