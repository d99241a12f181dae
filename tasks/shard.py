"""Sharding tasks: plan the shards, write groups of them in parallel, write the manifest last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from conf.text import count, logger
from infra import store
from infra.store import files
from models.results import ShardResult
from tasks import policy

if TYPE_CHECKING:
    from models.data.shards.layout import ShardLayout

log = logger()


@dataclass(frozen=True)
class ShardPlan:
    """Location of the shards and the groups to write, or the result if the data set is complete already.

    Attributes:
        name: Name of the data set.
        classes: Names of its classes in the order of the labels, known before anything is written.
        version: Version of the data set that is written; empty for the first.
        refused: One line per refused version whose images are withheld.
        version_name: Name by which a night may refuse it, also of the first; empty for a set that is not appended to.
        absent: Line about images that are not in the folder any more, but in the data set; empty for none.
        uncovered: Split, and the classes that have no image there.
        is_val_drawn: Whether the source has no val of its own.
    """

    root: str
    groups: list[list[int]]
    done: ShardResult | None
    name: str
    classes: tuple[str, ...]
    version: str = ""
    refused: tuple[str, ...] = ()
    version_name: str = ""
    absent: str = ""
    uncovered: tuple[tuple[str, tuple[str, ...]], ...] = ()
    is_val_drawn: bool = False


@task(task_run_name="plan shards of {data.name}", **policy.STORE_WORK)
async def plan_shards(data: schema.Data, storage: str, fewest_classes: int = 1) -> ShardPlan:
    """Opens the source, lays out its shards and stores the layout for the writers.

    If the manifest exists, only the shards that the store has lost since then are planned.

    Args:
        data: Data set.
        storage: Root of the object store.
        fewest_classes: Number of classes with images that the flow needs. New images of a set may be of a single one.

    Raises:
        ConfigError: Fewer classes.
        AppendError: Nothing can be appended to the data set; ``plan_anew`` begins it anew.
    """
    return await asyncio.to_thread(_plan, data, storage, fewest_classes)


@task(task_run_name="plan shards of {data.name} anew", **policy.STORE_WORK)
async def plan_anew(data: schema.Data, storage: str) -> ShardPlan:
    """As ``plan_shards`` of a set that is appended to, but all images of its source begin it anew."""
    return await asyncio.to_thread(_plan_anew, data, storage)


def _plan(data: schema.Data, storage: str, fewest_classes: int = 1) -> ShardPlan:
    from models.data.shards import writer
    from models.data.sources.listing import require_classes

    def plan(data: schema.Data, storage: str) -> ShardLayout:
        layout = writer.plan(data, storage)
        if not data.append:
            require_classes(data, layout.source, fewest_classes)
        return layout

    return _lay_out(data, storage, plan)


def _plan_anew(data: schema.Data, storage: str) -> ShardPlan:
    from models.data.shards import writer

    return _lay_out(data, storage, writer.plan_anew)


def _lay_out(data: schema.Data, storage: str, plan: Callable[[schema.Data, str], ShardLayout]) -> ShardPlan:
    from models.data.shards import in_place, manifest, refusals, states, writer
    from models.data.shards.layout import find_uncovered, freeze_val
    from models.data.shards.stored import build_result
    from models.data.sources.class_remarks import describe_uncovered

    store.ensure_root(storage)
    with _source_errors(data):
        state = states.describe(data)  # before the images are read: what is written meanwhile is of another state
        layout = plan(data, storage)
    layout = replace(layout, state=state)
    uncovered = find_uncovered(layout)
    for split, absent in uncovered.items():
        line = describe_uncovered(absent, len(layout.source.classes), split)
        other_seed = "" if layout.source.own_val else ", or choose another data.seed"  # which draws the splits
        log.warning("%s: %s; add images of them%s", data.name, line, other_seed)
    if layout.absent:
        log.warning("%s: %s", data.name, layout.absent)
    if layout.addresses:
        in_place.warn_if_sorted(layout)
    planned = ShardPlan(
        layout.root,
        [],
        None,
        data.name,
        layout.source.classes,
        layout.version,
        tuple(refusals.describe_withheld(data.name, version) for version in layout.refused),
        layout.version_name if data.append else "",
        layout.absent,
        tuple(uncovered.items()),
        not layout.source.own_val,
    )
    if store.exists(layout.manifest_uri):
        sha256, current = manifest.load(layout.manifest_uri)
        if not (lost := writer.reopen_lost(layout, current)):
            freeze_val(layout, current.quarantine)  # its list may have been deleted, as of a refused version
            done = build_result(data, layout.manifest_uri, sha256, current, reused=True)
            states.remember(data, layout.root.rpartition("/")[0], state, layout.manifest_uri)
            return replace(planned, done=done, classes=current.classes)
    else:
        lost = None
    writer.PLANS.share(layout)
    return replace(planned, groups=writer.groups(layout, data.shards_per_task, lost))


@task(task_run_name="shards of {data.name} from {numbers[0]}", **policy.STORE_WORK)
async def write_group(data: schema.Data, root: str, numbers: list[int], version: str) -> int:
    """Writes one group of shards; skips those that an earlier run finished."""
    return await asyncio.to_thread(_write_group, data, root, numbers, version)


def _write_group(data: schema.Data, root: str, numbers: list[int], version: str = "") -> int:
    from models.data.shards import writer

    with _source_errors(data):
        return writer.write_group(writer.PLANS.get(data, root, version), numbers)


@task(task_run_name="manifest of {data.name}", **policy.STORE_WORK)
async def write_manifest(data: schema.Data, root: str, version: str) -> ShardResult:
    """Writes the manifest; from then on the data set, or this version of it, exists."""
    return await asyncio.to_thread(_write_manifest, data, root, version)


def _write_manifest(data: schema.Data, root: str, version: str = "") -> ShardResult:
    from models.data.shards import states, writer
    from models.data.shards.manifest import describe_notes
    from models.data.shards.stored import build_result

    with _source_errors(data):
        layout = writer.PLANS.get(data, root, version)
    sha256, manifest = writer.write_manifest(layout)
    if lost := manifest.quarantine:
        log.warning("%s: %s excluded; %s", data.name, count(len(lost), "unusable image"), describe_notes(lost))
    states.remember(data, root.rpartition("/")[0], layout.state, layout.manifest_uri)
    return build_result(data, layout.manifest_uri, sha256, manifest, reused=False)


@contextmanager
def _source_errors(data: schema.Data) -> Iterator[None]:
    """Converts system errors while a source is read to effnet's errors, so that e.g. a lost disk is retried."""
    with files.errors(Path(data.path or data.source)):
        yield
