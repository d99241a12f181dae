"""Sharding as tasks: plan, write groups of shards in parallel, manifest last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from infra import store
from infra.store import files
from models.results import ShardResult
from tasks import policy

if TYPE_CHECKING:
    from models.data.shards.manifest import Manifest


@dataclass(frozen=True)
class ShardPlan:
    """Where the shards go, and in what groups they are written; or the result where the manifest is there already."""

    root: str
    groups: list[list[int]]
    done: ShardResult | None


@task(task_run_name="plan shards of {data.name}", **policy.STORE_WORK)
async def plan_shards(data: schema.Data, storage: str) -> ShardPlan:
    """Opens the source and lays out its shards; what they are written from is left in the store.

    Where the manifest is there, only those shards are planned that the store has lost since.
    """
    return await asyncio.to_thread(_plan, data, storage)


def _plan(data: schema.Data, storage: str) -> ShardPlan:
    from models.data.shards import manifest, writer

    store.ensure_root(storage)
    with _source_errors(data):
        layout = writer.plan(data, storage)
    if store.exists(layout.manifest_uri):
        sha256, found = manifest.load(layout.manifest_uri)
        if not (lost := writer.reopen_lost(layout, found)):
            return ShardPlan(layout.root, [], _result(data, layout.manifest_uri, sha256, found, reused=True))
    else:
        lost = None
    writer.PLANS.share(layout)
    return ShardPlan(layout.root, writer.groups(layout, data.shards_per_task, lost), None)


@task(task_run_name="shards of {data.name} from {numbers[0]}", **policy.STORE_WORK)
async def write_group(data: schema.Data, root: str, numbers: list[int]) -> int:
    """Writes one group of shards; those that a run before this one finished are left as they are."""
    return await asyncio.to_thread(_write_group, data, root, numbers)


def _write_group(data: schema.Data, root: str, numbers: list[int]) -> int:
    from models.data.shards import writer

    with _source_errors(data):
        return writer.write_group(writer.PLANS.get(data, root), numbers)


@task(task_run_name="manifest of {data.name}", **policy.STORE_WORK)
async def write_manifest(data: schema.Data, root: str) -> ShardResult:
    """Writes the manifest; from then on the data set exists."""
    return await asyncio.to_thread(_manifest, data, root)


def _manifest(data: schema.Data, root: str) -> ShardResult:
    from models.data.shards import writer

    with _source_errors(data):
        layout = writer.PLANS.get(data, root)
    sha256, manifest = writer.write_manifest(layout)
    return _result(data, layout.manifest_uri, sha256, manifest, reused=False)


@contextmanager
def _source_errors(data: schema.Data) -> Iterator[None]:
    """What the system says while a source is read, as one of our errors: a lost disk is worth another try."""
    with files.errors(Path(data.path or data.source)):
        yield


def _result(data: schema.Data, uri: str, sha256: str, whole: Manifest, *, reused: bool) -> ShardResult:
    from models.data.shards.manifest import exclude_shards

    manifest = exclude_shards(whole, data.leave_out)
    counts = {split: manifest.samples(split) for split in ("train", "minival", "val")}
    return ShardResult(
        manifest.name,
        uri,
        sha256,
        len(manifest.classes),
        **counts,
        shards=len(manifest.shards),
        reused=reused,
        quarantined=len(manifest.quarantine),
        missing=manifest.missing,
        left_out=tuple(sorted(set(data.leave_out))),
    )
