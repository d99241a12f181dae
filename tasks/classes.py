"""Compares the classes of a registered model with those of a data set by name, and reorders its classifier."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task

from conf.text import logger
from infra import store
from infra.errors import ConfigError
from models.results import ShardResult
from tasks import policy

if TYPE_CHECKING:
    from infra.tracking.registry import Version

log = logger()
SHOWN = 3  # differences in a message


@task(task_run_name="classes of {ref}", **policy.BOOKKEEPING)
async def match_classes(weights: tuple[str, str], ref: str, shards: ShardResult, storage: str) -> tuple[str, str]:
    """Returns weights whose logits are in the order of a data set's classes: the given ones if they are already.

    If the data set has the same classes in another order, or a part of them, the rows of the classifier are reordered
    by name, which is logged. The network then chooses among the classes of the data set only.

    Args:
        weights: URI and sha256 of the registered weights.
        ref: ``NAME/VERSION``.
        shards: The data set.
        storage: Root of the object store, for reordered weights.

    Raises:
        ConfigError: The data set has a class that the model lacks; the message shows the first differences.
        ArtifactError: The version was not registered by effnet, or a file is damaged.
    """
    return await asyncio.to_thread(_match_classes, weights, ref, shards, storage)


def _match_classes(weights: tuple[str, str], ref: str, shards: ShardResult, storage: str) -> tuple[str, str]:
    from infra.tracking import registry
    from models.networks.weights import select_classes

    version = registry.resolve_version(ref)
    model, data = class_lists(version, shards)
    if model == data:
        return weights
    rows = require_rows(ref, shards, model, data)
    what = (
        "the same classes in another order" if len(model) == len(data) else f"{len(data)} of its {len(model)} classes"
    )
    log.info("%s: %s has %s; they are matched by name, and the model chooses among them", ref, shards.name, what)
    selected = select_classes(*weights, rows)
    sha256 = hashlib.sha256(selected).hexdigest()
    uri = store.join(storage, "weights", f"{sha256}.safetensors")
    if not store.exists(uri):
        store.ensure_root(storage)
        store.write(uri, selected)
    return uri, sha256


def class_mismatch(version: Version, shards: ShardResult) -> str | None:
    """The difference between the classes of a version and of a data set as text; None if they differ in order at most.

    Imported weights have no class names of their own, see ``class_lists``.
    """
    model, data = class_lists(version, shards)
    rows = find_rows(model, data)
    return None if rows is not None and len(rows) == len(model) else describe_difference(model, data)


def class_lists(version: Version, shards: ShardResult) -> tuple[list[str], list[str]]:
    """The class names of a version and of a data set, in the order of logits and labels.

    No published file has class names. Those of imported weights are ImageNet's if there are 1,000, and are matched by
    WordNet ids, which are the class names of ImageNet's data; otherwise they are numbers. If a data set has as many
    other names, they are assumed to be theirs, which is logged; numbers are not matched, since those of another data
    set mean other classes.
    """
    from infra.tracking import registry
    from models.data.shards import manifest as manifests
    from models.networks import packaged

    model = [str(name) for name in registry.describe(version)["class_names"]]
    data = list(manifests.load(shards.manifest_uri)[1].classes)
    numbers = [str(number) for number in range(len(model))]
    of_imagenet = tuple(model) == packaged.imagenet_names()
    unknown = "source_sha256" in version.tags and (of_imagenet or model == numbers)
    if not unknown or set(model) == set(data):
        return model, data
    if len(model) == len(packaged.imagenet_wnids()) and set(data) <= set(packaged.imagenet_wnids()):
        return list(packaged.imagenet_wnids()), data
    if len(model) != len(data):
        return model if of_imagenet else [f"number {name}" for name in model], data
    log.warning("%s/%d: class names unknown: assumed in the order of %s", version.name, version.version, shards.name)
    return data, data


def require_rows(ref: str, shards: ShardResult, model: Sequence[str], data: Sequence[str]) -> list[int]:
    """The index in ``model`` of each name in ``data``.

    Raises:
        ConfigError: The data set has a class that the model lacks; the message shows the first differences.
    """
    rows = find_rows(model, data)
    if rows is None:
        raise ConfigError(
            f"{ref} was trained on other classes than those of {shards.name}: {describe_difference(model, data)}; its "
            "accuracy there would mean nothing. Take the data set that it was trained on"
        )
    return rows


def find_rows(model: Sequence[str], data: Sequence[str]) -> list[int] | None:
    """The index in ``model`` of each name in ``data``; None if one is missing, or if names repeat in unequal lists."""
    if list(model) == list(data):
        return list(range(len(model)))
    index = {name: row for row, name in enumerate(model)}
    if len(index) < len(model) or len(set(data)) < len(data) or not index.keys() >= set(data):
        return None
    return [index[name] for name in data]


def describe_difference(model: Sequence[str], data: Sequence[str]) -> str | None:
    """The first classes that differ between a model's list and a data set's; None if the lists are equal."""
    if list(model) == list(data):
        return None
    if len(model) != len(data):
        only = {"data": sorted(set(data) - set(model)), "model": sorted(set(model) - set(data))}
        parts = [f"the model has {len(model)} classes, the data {len(data)}"]
        parts += [f"only the {side} has {', '.join(map(repr, names[:SHOWN]))}" for side, names in only.items() if names]
        return "; ".join(parts)
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(model, data, strict=True)) if a != b]
    shown = ", ".join(f"class {i} is {a!r} in the model and {b!r} in the data" for i, a, b in pairs[:SHOWN])
    return f"{shown} ({len(pairs)} of {len(model)} differ)"
