"""Whether a registered model tells the classes of a data set apart, in the data set's order."""

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
    """Refuses to evaluate a model on labels that mean something else to it.

    Args:
        ref: ``NAME/VERSION``.
        shards: the data set that it meets.

    Raises:
        ConfigError: the lists of classes differ; the message shows where.
        ArtifactError: the version was not registered by us, or its description is damaged.
    """
    await asyncio.to_thread(_check, ref, shards)


def _check(ref: str, shards: ShardResult) -> None:
    from infra.tracking import registry

    differs = class_mismatch(registry.resolve_version(ref), shards)
    if differs is not None:
        raise ConfigError(
            f"{ref} was trained on other classes than those of {shards.name}: {differs}; its accuracy "
            "there would mean nothing. Take the data set that it was trained on"
        )


def class_mismatch(version: Version, shards: ShardResult) -> str | None:
    """How the classes of a version differ from a data set's, in words; None where they are the same.

    The classes of imported weights have no names. Then their number is all there is to compare, and a line in the
    log says so.
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
    """The first classes that differ between a model's list and a data set's; None where the lists are equal."""
    if list(model) == list(data):
        return None
    if len(model) != len(data):
        counts = f"the model has {len(model)} classes, the data {len(data)}"
        beyond = sorted(set(data) - set(model))[:SHOWN] or sorted(set(model) - set(data))[:SHOWN]
        return f"{counts}; only one of them has {', '.join(map(repr, beyond))}" if beyond else counts
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(model, data, strict=True)) if a != b]
    shown = ", ".join(f"class {i} is {a!r} in the model and {b!r} in the data" for i, a, b in pairs[:SHOWN])
    return f"{shown} ({len(pairs)} of {len(model)} differ)"
