"""The model registry: finds versions, moves aliases, downloads weights and verifies their sha256.

See ``registration.py`` for the creation of versions and ``package.py`` for their contents.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from conf.text import did_you_mean, escaped
from infra.errors import ArtifactError, ConfigError
from infra.tracking import rest
from infra.tracking.cards import shorten
from infra.tracking.client import connection, library

CHAMPION = "champion"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"
FILES_FOLDER = "extra_files"  # MLflow's name
WEIGHTS_TAG, CONFIG_TAG = "weights_sha256", "config_sha256"
_PAGE = 1000  # MLflow's largest page of models
_REFERENCE = re.compile(r"(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>[0-9]+))")


@dataclass(frozen=True)
class Version:
    """A version in the registry.

    Attributes:
        reused: Whether ``register`` returned an existing version.
        created: Unix seconds.
    """

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    reused: bool = False
    created: float = 0.0


def promote(name: str, version: int, alias: str) -> None:
    """Moves an alias to a version in one step; a reader sees either the old or the new one.

    Raises:
        ConfigError: The model or version does not exist.
    """
    try:
        _set_alias(name, version, alias)
    except rest.MissingError as error:
        _raise_missing(error, name, f"version {version}")


def _set_alias(name: str, version: int, alias: str) -> None:
    fields = {"name": name, "alias": alias, "version": str(version)}
    try:
        rest.post("registered-models/alias", **fields)
    except rest.SimultaneousError:  # another process created the alias between MLflow's look and its insert
        rest.post("registered-models/alias", **fields)  # the alias exists now, so this updates it


def champion(name: str) -> Version | None:
    """Returns the version of ``NAME@champion``; None if the model or the alias does not exist."""
    return find_alias(name, CHAMPION)


def find_alias(name: str, alias: str) -> Version | None:
    """Returns the version that has an alias; None if the model or the alias does not exist."""
    try:
        return _read_version("registered-models/alias", name=name, alias=alias)
    except rest.MissingError:
        return None


def versions(name: str) -> list[Version]:
    """Returns all versions of a registered model, oldest first, without their aliases."""
    entries = rest.pages("GET", "model-versions/search", "model_versions", filter=f"name = '{name}'")
    return sorted(map(to_version, entries), key=lambda version: version.version)


def find_weights(sha256: str) -> list[Version]:
    """Returns the versions of all models that have these weights, without their aliases."""
    entries = rest.pages("GET", "model-versions/search", "model_versions", filter=f"tags.{WEIGHTS_TAG} = '{sha256}'")
    return [to_version(entry) for entry in entries]


def require_model_of_effnet(name: str) -> None:
    """Checks that a registered model may get a version of effnet, and its aliases be moved; one that is missing may.

    Raises:
        ConfigError: It has versions, and effnet made none of them.
    """
    present = versions(name)
    if present and not any(WEIGHTS_TAG in version.tags for version in present):
        raise ConfigError(
            f"MLflow has a model {name} that is not effnet's (none of its versions has the tag {WEIGHTS_TAG}); "
            "rename it there, or use another services.mlflow"
        )


def set_tags(name: str, version: int, tags: Mapping[str, str]) -> None:
    """Sets tags of a version, in order."""
    for key, value in tags.items():
        rest.post("model-versions/set-tag", name=name, version=str(version), key=key, value=value)


def describe_model(name: str, text: str, tags: Mapping[str, str]) -> None:
    """Sets the description and the tags of a registered model, which its list shows, where they differ."""
    model = rest.get("registered-models/get", name=name)["registered_model"]
    present = {tag["key"]: tag["value"] for tag in model.get("tags", [])}
    for key, value in tags.items():
        if present.get(key) != (shown := escaped(value)):
            rest.post("registered-models/set-tag", name=name, key=key, value=shown)
    if model.get("description") != (shown := shorten(text)):
        rest.patch("registered-models/update", name=name, description=shown)


def version_url(name: str, version: int) -> str:
    """Returns the address of a version's page."""
    return f"{rest.address()}/#/models/{quote(name, safe='')}/versions/{version}"


def resolve_version(ref: str) -> Version:
    """Returns the version of ``NAME@ALIAS`` or ``NAME/VERSION``.

    Raises:
        ConfigError: The version does not exist; the message names the nearest models, or the model's aliases.
    """
    match = _REFERENCE.fullmatch(ref)
    if match is None:
        raise ConfigError(f"a registered model is NAME@ALIAS or NAME/VERSION, not {ref!r}")
    name, alias, number = match["name"], match["alias"], match["version"]
    try:
        if alias is not None:
            return _read_version("registered-models/alias", name=name, alias=alias)
        return _read_version("model-versions/get", name=name, version=number)
    except rest.MissingError as error:
        _raise_missing(error, name, f"alias {alias!r}" if alias is not None else f"version {number}")


def _read_version(path: str, **fields: str) -> Version:
    return to_version(rest.get(path, **fields)["model_version"])


def fetch_weights(ref: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Downloads the weights and the description of a version and verifies their sha256.

    Args:
        ref: Reference, ``NAME@ALIAS`` or ``NAME/VERSION``.
        folder: Target folder, created if missing; intact files in it are not downloaded again.

    Returns:
        The path of ``weights.safetensors`` and the contents of ``config.json``.

    Raises:
        ConfigError: The version does not exist.
        ArtifactError: The version was not registered by effnet, or a file differs from the registered one.
    """
    version = resolve_version(ref)
    for file, tag in ((WEIGHTS, WEIGHTS_TAG), (CONFIG, CONFIG_TAG)):
        _fetch_file(version, file, tag, folder)
    return folder / WEIGHTS, _read_description(folder / CONFIG, version)


def describe(version: Version) -> dict[str, Any]:
    """Returns the ``config.json`` of a version without downloading its weights.

    Raises:
        ArtifactError: The version was not registered by effnet, or the file differs from the registered one.
    """
    with tempfile.TemporaryDirectory(prefix="effnet-describe-") as scratch:
        return _read_description(_fetch_file(version, CONFIG, CONFIG_TAG, Path(scratch)), version)


def _read_description(path: Path, version: Version) -> dict[str, Any]:
    ref = f"{version.name}/{version.version}"
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ArtifactError(f"{ref}: its {CONFIG} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{ref}: its {CONFIG} does not hold a JSON object")
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
        # MLflow writes additional files beside the requested one.
        loaded = Path(library().artifacts.download_artifacts(uri, dst_path=scratch, tracking_uri=rest.address()))
        actual = sha256_of(loaded)
        if actual != sha256:
            raise ArtifactError(f"{uri} is damaged: sha256 {actual[:12]}, registered as {sha256[:12]}")
        loaded.replace(path)


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file as a hex digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _raise_missing(error: rest.MissingError, name: str, target: str) -> NoReturn:
    """Raises a ``ConfigError`` that names the alternatives."""
    models = {model["name"]: model for model in search_models()}
    if name not in models:
        words = [
            did_you_mean(name, models),
            f"there are {', '.join(sorted(models))}" if models else "the registry is empty",
        ]
        raise ConfigError(f"no registered model {name!r}; {' '.join(filter(None, words))}") from error
    held = ", ".join(f"{alias} = {number}" for alias, number in aliases(models[name]).items()) or "none"
    raise ConfigError(f"{name} has no {target}; aliases: {held}") from error


def search_models() -> Iterator[dict[str, Any]]:
    """Yields all registered models, as MLflow describes them."""
    return rest.pages("GET", "registered-models/search", "registered_models", max_results=_PAGE)


def aliases(model: Mapping[str, Any]) -> dict[str, int]:
    """The aliases of a registered model and the versions that they name."""
    return {entry["alias"]: int(entry["version"]) for entry in model.get("aliases", [])}


def to_version(entry: Mapping[str, Any]) -> Version:
    """Converts MLflow's description of a version into a ``Version``."""
    return Version(
        entry["name"],
        int(entry["version"]),
        entry.get("run_id", ""),
        tuple(sorted(entry.get("aliases", []))),
        {tag["key"]: tag["value"] for tag in entry.get("tags", [])},
        created=int(entry["creation_timestamp"]) / 1000,
    )
