"""Sharding as tasks: plan, write groups of shards in parallel, manifest last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from infra import store
from models.results import ShardResult
from tasks import policy

if TYPE_CHECKING:
    from models.data.manifest import Manifest


@dataclass(frozen=True)
class ShardPlan:
    """Groups of shard numbers to write, or the result where the manifest is there already."""

    groups: list[list[int]]
    done: ShardResult | None


@task(task_run_name="plan shards of {data.name}", **policy.STORE_WORK)
async def plan_shards(data: schema.Data, storage: str) -> ShardPlan:
    """Opens the source and lays out its shards; writes nothing."""
    return await asyncio.to_thread(_plan, data, storage)


def _plan(data: schema.Data, storage: str) -> ShardPlan:
    from models.data import manifest, shards

    store.ensure_root(storage)
    layout = shards.plan(data, storage)
    if store.exists(layout.manifest_uri):
        sha256, found = manifest.load(layout.manifest_uri)
        return ShardPlan([], _result(layout.manifest_uri, sha256, found, reused=True))
    return ShardPlan(shards.groups(layout, data.shards_per_task), None)


@task(task_run_name="shards of {data.name} from {numbers[0]}", **policy.STORE_WORK)
async def write_group(data: schema.Data, storage: str, numbers: list[int]) -> int:
    """Writes one group of shards; those that a run before this one finished are left as they are."""
    from models.data import shards

    return await asyncio.to_thread(shards.write_group, data, storage, numbers)


@task(task_run_name="manifest of {data.name}", **policy.STORE_WORK)
async def write_manifest(data: schema.Data, storage: str) -> ShardResult:
    """Writes the manifest; from then on the data set exists."""
    return await asyncio.to_thread(_manifest, data, storage)


def _manifest(data: schema.Data, storage: str) -> ShardResult:
    from models.data import shards

    layout = shards.plan(data, storage)
    sha256, manifest = shards.write_manifest(layout, data)
    return _result(layout.manifest_uri, sha256, manifest, reused=False)


def _result(uri: str, sha256: str, manifest: Manifest, *, reused: bool) -> ShardResult:
    counts = {split: manifest.samples(split) for split in ("train", "minival", "val")}
    return ShardResult(
        manifest.name,
        uri,
        sha256,
        len(manifest.classes),
        **counts,
        shards=len(manifest.shards),
        reused=reused,
    )
