"""A folder of made-up cats and dogs that grows, and its shards."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image

from conf.schema import Data
from models.data.shards import acceptance
from models.results import ShardResult
from tasks.nights.batch import _open_batch
from tasks.shard import ShardPlan, _plan, _write_group, _write_manifest


def add(folder: Path, first: int, last: int) -> None:
    """Adds the images of these numbers, even ones as cats and odd ones as dogs."""
    for number in range(first, last):
        path = folder / ("cat", "dog")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture(number))


@lru_cache(maxsize=1024)  # most tests begin with the same hundred
def _picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 7 % 256, 3 + number // 256)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(data: Data, storage: str) -> ShardResult:
    """Shards a folder as the flow does, in one process."""
    return _write(data, _plan(data, storage))


def append_pending(data: Data, storage: str) -> ShardResult:
    """Appends as a night does, which accepts the version only later."""
    plan = _plan(data, storage)
    _open_batch(plan)
    return _write(data, plan)


def _write(data: Data, plan: ShardPlan) -> ShardResult:
    if plan.done is not None:
        return plan.done
    for numbers in plan.groups:
        _write_group(data, plan.root, numbers, plan.version)
    return _write_manifest(data, plan.root, plan.version)


def refuse(result: ShardResult, reason: str) -> str:
    """Refuses a version as a night does; returns its name."""
    mark = acceptance.find(result.manifest_uri)
    assert mark is not None
    acceptance.refuse(result.manifest_uri.rpartition("/")[0], mark.version, reason)
    return mark.version
