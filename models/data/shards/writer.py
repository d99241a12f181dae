"""Writing a source as WebDataset tars into the object store; resumable, byte-equal, manifest last.

Images are read and looked at in threads, in order and a bounded number at a time; each shard streams to the store
in parts. Nothing touches the local disk.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from functools import lru_cache
from typing import IO, Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from conf.schema import Data
from infra import store
from infra.errors import DataError
from models.data.shards import manifest as manifests
from models.data.shards.chunks import PIECE_BYTES, ShardChunk, cut, cuts
from models.data.shards.layout import PLANS as PLANS
from models.data.shards.layout import ShardLayout as ShardLayout
from models.data.shards.layout import groups as groups
from models.data.shards.layout import plan as plan
from models.data.shards.manifest import SPLITS, TABLE, ImageNote, Manifest, Shard
from models.data.shards.tar_header import END

SHARDS_AT_ONCE = 2  # of a process, whatever the number of its tasks: one reads while the other waits for the store
_INDICES_AT_ONCE = 16
LOST_SHARE, LOST_FEW = 0.01, 10  # images that may be left out without asking


def write_group(layout: ShardLayout, numbers: Sequence[int]) -> int:
    """Writes the shards of one group that are not finished yet; returns how many it wrote.

    A shard is finished when its index object is there; the index is written after the shard.
    """
    writers, _ = _pools(os.getpid())
    running = [writers.submit(_write_missing, layout, number) for number in numbers]
    try:
        return sum(each.result() for each in running)
    finally:  # who tries again must not meet a shard that is still being written
        wait([each for each in running if not each.cancel()])


def reopen_lost(layout: ShardLayout, manifest: Manifest) -> list[int]:
    """Numbers of the shards that the store lacks, or has in another size than the manifest says.

    Their indices are deleted, so they are not finished any more and can be written again, to the same bytes.
    """
    there = {uri.rpartition("/")[2]: size for uri, size in store.list_sizes(layout.root)}
    whole = {shard.name for shard in manifest.shards if there.get(shard.name) == shard.bytes}
    lost = [number for number, name in enumerate(layout.names) if name not in whole]
    for number in lost:
        store.delete(layout.index_uri(number))
    return lost


def write_manifest(layout: ShardLayout) -> tuple[str, Manifest]:
    """Gathers the indices of all shards into the manifest; returns its sha256 and itself.

    Raises:
        NotFoundError: a shard is not finished.
        DataError: a shard in the store has another size than its index says; a split has lost all its images, or the
            set more than a percent of them (and more than ten), unless ``data.allow_partial`` is given.
    """
    with ThreadPoolExecutor(_INDICES_AT_ONCE) as pool:
        parts = list(pool.map(lambda number: _index(layout, number), range(len(layout.names))))
    shards, tables, quarantine, unusual = zip(*parts, strict=True)
    manifest = Manifest(
        name=layout.data.name,
        classes=layout.source.classes,
        source_digest=layout.source.digest,
        encoding=layout.encoding,
        shards=shards,
        table=np.concatenate(tables),
        quarantine=sum(quarantine, ()),
        unusual=sum(unusual, ()),
        missing=layout.source.missing,
    )
    for split in SPLITS:
        if manifest.samples(split) == 0:
            first = next(each for each in manifest.quarantine if each.split == split)
            raise DataError(f"{layout.data.name}: no image of split {split!r} can be used; {first.name}: {first.what}")
    _refuse_many_lost(layout.data, manifest)
    return manifests.save(manifest, layout.root), manifest


def _refuse_many_lost(data: Data, manifest: Manifest) -> None:
    """A few damaged images are left out and listed; many are a damaged disk or download."""
    lost, total = len(manifest.quarantine), len(manifest.quarantine) + len(manifest.table)
    if lost > max(LOST_FEW, LOST_SHARE * total) and not data.allow_partial:
        first = manifest.quarantine[0]
        raise DataError(
            f"{data.name}: {lost} of {total} images cannot be used, the first is {first.name}: {first.what}; "
            "fetch the set again, or give data.allow_partial=true"
        )


def write_shard(layout: ShardLayout, number: int, sink: IO[bytes]) -> dict[str, Any]:
    """Streams one tar into ``sink`` and returns its index; image bytes are copied as they are.

    The index is ``shard``, a list for each column of ``TABLE``, ``quarantine`` and ``unusual``.
    """
    name, split = layout.names[number], layout.splits[number]
    rows: list[tuple[int, ...]] = []
    remarks: dict[str, list[dict[str, str]]] = {"quarantine": [], "unusual": []}
    digest, size = blake3(), 0

    def put(data: bytes | memoryview) -> None:
        nonlocal size
        digest.update(data)
        sink.write(data)
        size += len(data)

    for piece in _pieces(layout, number):
        rows += ((row[0] + size, *row[1:]) for row in piece.rows)
        remarks["quarantine"] += map(asdict, piece.quarantine)
        remarks["unusual"] += map(asdict, piece.unusual)
        with memoryview(piece.room)[: piece.size] as data:
            put(data)
    put(END)
    shard = Shard(name, split, len(rows), size, digest.hexdigest())
    columns = zip(*rows, strict=True) if rows else [()] * len(TABLE.names or ())
    return {"shard": asdict(shard), **remarks, **dict(zip(TABLE.names or (), columns, strict=True))}


def _write_missing(layout: ShardLayout, number: int) -> int:
    if store.exists(layout.index_uri(number)):
        return 0
    with store.open_write(store.join(layout.root, layout.names[number])) as stream:
        index = write_shard(layout, number, stream)
    text = json.dumps(index, sort_keys=True, separators=(",", ":"))
    store.write(layout.index_uri(number), text.encode())
    return 1


def _index(
    layout: ShardLayout, number: int
) -> tuple[Shard, NDArray[np.void], tuple[ImageNote, ...], tuple[ImageNote, ...]]:
    """What the index of one shard says, checked against the shard's size in the store."""
    uri = layout.index_uri(number)
    index = store.read_json(uri)
    try:
        shard = Shard(**index["shard"])
        table = np.zeros(shard.samples, TABLE)
        for column in TABLE.names or ():
            table[column] = np.array(index[column], TABLE[column]).reshape(shard.samples)
        quarantine, unusual = (tuple(ImageNote(**each) for each in index[key]) for key in ("quarantine", "unusual"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{uri} is no index of a shard: {error}; delete it and run again") from error
    found = store.size(store.join(layout.root, layout.names[number]))
    if (shard.name, shard.bytes) != (layout.names[number], found):
        raise DataError(
            f"{layout.root}/{layout.names[number]} has {found} bytes, its index says {shard.bytes} of {shard.name}; "
            "delete both and run again"
        )
    return shard, table, quarantine, unusual


def _pieces(layout: ShardLayout, number: int) -> Iterator[ShardChunk]:
    """The pieces of a shard in order; reading threads are a bounded number of them ahead.

    A piece is done with when the next one is asked for: its buffer is filled again.
    """
    _, readers = _pools(os.getpid())
    coming: deque[Future[ShardChunk]] = deque()
    free: list[bytearray] = []
    try:
        for indices, size in cuts(layout.source, layout.members[number]):
            room = free.pop() if free else bytearray(PIECE_BYTES)
            if len(room) < size:  # one large image
                room = bytearray(size)
            coming.append(readers.submit(cut, layout, layout.splits[number], indices, room))
            if len(coming) > _reading_threads():
                yield (piece := coming.popleft().result())
                if len(piece.room) <= 2 * PIECE_BYTES:
                    free.append(piece.room)
        while coming:
            yield coming.popleft().result()
    finally:
        for each in coming:
            each.cancel()


def _reading_threads() -> int:
    return min(32, (os.cpu_count() or 1) + 6)  # a source may lie in an object store: most of them wait


@lru_cache(maxsize=1)
def _pools(_process: int) -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
    """Threads that write shards and threads that read images; of the whole process, so that memory is bounded.

    A fork does not take threads with it, hence the process's number.
    """
    return ThreadPoolExecutor(SHARDS_AT_ONCE, "shard"), ThreadPoolExecutor(_reading_threads(), "image")
