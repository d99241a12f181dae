"""Checks that a registered model has the classes of a data set, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task

from conf.text import logger
from infra.errors import ConfigError
from models.results import ShardResult
from tasks import policy

if TYPE_CHECKING:
    from infra.tracking.registry import Version

log = logger()
SHOWN = 3  # differences in a message


@task(task_run_name="classes of {ref}", **policy.BOOKKEEPING)
async def check_classes(ref: str, shards: ShardResult) -> None:
    """Raises if the labels of a data set are not the classes of a model.

    Args:
        ref: ``NAME/VERSION``.
        shards: The data set to evaluate on.

    Raises:
        ConfigError: The lists of classes differ; the message shows the difference.
        ArtifactError: The version was not registered by effnet, or its description is damaged.
    """
    await asyncio.to_thread(_check, ref, shards)


def _check(ref: str, shards: ShardResult) -> None:
    from infra.tracking import registry

    mismatch = class_mismatch(registry.resolve_version(ref), shards)
    if mismatch is not None:
        raise ConfigError(
            f"{ref} was trained on other classes than those of {shards.name}: {mismatch}; its accuracy "
            "there would mean nothing. Take the data set that it was trained on"
        )


def class_mismatch(version: Version, shards: ShardResult) -> str | None:
    """The difference between the classes of a version and of a data set as text; None if they are equal.

    Imported weights have no class names. Then only the number of classes is compared, which is logged.
    """
    from infra.tracking import registry
    from models.data.shards import manifest as manifests

    names = [str(name) for name in registry.describe(version)["class_names"]]
    _, manifest = manifests.load(shards.manifest_uri)
    unknown = "source_sha256" in version.tags and names == [str(number) for number in range(len(names))]
    if unknown and len(names) == len(manifest.classes):
        log.info("%s/%d: class names unknown: assumed in the order of %s", version.name, version.version, shards.name)
        return None
    return describe_difference(names, manifest.classes)


def describe_difference(model: Sequence[str], data: Sequence[str]) -> str | None:
    """The first classes that differ between a model's list and a data set's; None if the lists are equal."""
    if list(model) == list(data):
        return None
    if len(model) != len(data):
        counts = f"the model has {len(model)} classes, the data {len(data)}"
        beyond = sorted(set(data) - set(model))[:SHOWN] or sorted(set(model) - set(data))[:SHOWN]
        return f"{counts}; only one of them has {', '.join(map(repr, beyond))}" if beyond else counts
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(model, data, strict=True)) if a != b]
    shown = ", ".join(f"class {i} is {a!r} in the model and {b!r} in the data" for i, a, b in pairs[:SHOWN])
    return f"{shown} ({len(pairs)} of {len(model)} differ)"
