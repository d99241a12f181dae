"""Writes a source to the object store as WebDataset tars: resumable, byte-identical, manifest last.

Threads read and validate the images, in order and a bounded number at a time; each shard is streamed to the store
in parts. Nothing touches the local disk.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from functools import lru_cache
from typing import IO, Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from conf.schema import Data
from conf.text import count
from infra import machine, store
from infra.errors import DataError, TransientError
from models.data.shards import contents, in_place, refusals, versions
from models.data.shards import manifest as manifests
from models.data.shards.chunks import PIECE_BYTES, ChangedError, ShardChunk, cut, cuts
from models.data.shards.layout import PLANS as PLANS
from models.data.shards.layout import ShardLayout as ShardLayout
from models.data.shards.layout import by_tar, freeze_val
from models.data.shards.layout import groups as groups
from models.data.shards.layout import plan as plan
from models.data.shards.layout import plan_anew as plan_anew
from models.data.shards.manifest import TABLE, ImageNote, Manifest, Shard, describe_notes, shard_fields, shard_uri
from models.data.shards.tar_header import END
from models.data.sources.index import forget as forget_tars
from models.data.sources.unused import LOST_FEW, LOST_SHARE

LOST_HINT = "; fetch the set again, or set data.allow_partial=true"
SHARDS_AT_ONCE = 2  # per process, for any number of tasks: one reads while the other waits for the store
_INDICES_AT_ONCE = 16


class ManyLostError(DataError):
    """Many images of a set, or of those that are appended to it, cannot be used."""


def write_group(layout: ShardLayout, numbers: Sequence[int]) -> int:
    """Writes the unfinished shards of one group; returns the number written.

    A shard is finished when its index object exists; the index is written after the shard.
    """
    writers, _ = _pools(os.getpid())
    running = [writers.submit(_write_missing, layout, shards) for shards in by_tar(layout, numbers)]
    try:
        return sum(future.result() for future in running)
    except ChangedError:
        folder = layout.root.rpartition("/")[0]
        contents.forget(folder)
        forget_tars(folder)
        raise
    finally:  # a retry must not run while a shard is still being written
        wait([future for future in running if not future.cancel()])


def reopen_lost(layout: ShardLayout, manifest: Manifest) -> list[int]:
    """Reopens the shards that are missing from the store or differ in size from the manifest; returns their numbers.

    Their indices are deleted, so the shards count as unfinished and can be rewritten with identical bytes. In place,
    these are the shards of tars that were written after they had been indexed.
    """
    if layout.addresses:
        return in_place.find_changed(layout)
    stored_sizes = {uri.rpartition("/")[2]: size for uri, size in store.list_sizes(layout.root)}
    whole = {shard.name for shard in manifest.shards if stored_sizes.get(shard.name) == shard.bytes}
    lost = [number for number, name in enumerate(layout.names) if name not in whole]
    for number in lost:
        store.delete(layout.index_uri(number))
    return lost


def write_manifest(layout: ShardLayout) -> tuple[str, Manifest]:
    """Combines the indices of all shards into the manifest; returns its sha256 and the manifest.

    Raises:
        NotFoundError: A shard is not finished.
        ManyLostError: More than one percent (and more than ten) of the images cannot be used, without
            ``data.allow_partial``; those of a version that ``data.accept`` names are taken as they are.
        DataError: A shard in the store differs in size from its index, or a split has lost all its images.
        TransientError: Another process has appended a version to the data set meanwhile, or frozen its val.
    """
    with ThreadPoolExecutor(_INDICES_AT_ONCE) as pool:
        parts = list(pool.map(lambda number: _read_index(layout, number), range(len(layout.names))))
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
        unused=(*layout.source.unused, *_describe_withheld(layout)),
        class_differences=layout.source.class_differences,
        duplicates=layout.source.duplicates,
    )
    for split in dict.fromkeys(layout.splits) if not layout.version else ():  # of new images, none may be usable
        if manifest.samples(split) == 0:
            notes = describe_notes([note for note in manifest.quarantine if note.split == split])
            raise DataError(f"{layout.data.name}: no image of split {split!r} can be used; {notes}")
    if not refusals.is_accepted_by_name(layout.data, layout.version_name):
        _refuse_many_lost(layout.data, manifest)
    if layout.version:
        return versions.publish(manifest, layout.root, layout.version)
    if not freeze_val(layout, manifest.quarantine):  # not before: the val of shards that are refused binds nobody
        raise TransientError(
            f"{layout.data.name}: another process has frozen the val {layout.data.frozen_val!r} of another state of "
            "the folder; run the command again"
        )
    return manifests.save(manifest, layout.root), manifest


def _describe_withheld(layout: ShardLayout) -> list[str]:
    if not layout.withheld:
        return []
    if layout.version:
        new = count(layout.withheld, "new image")
        return [f"{new} would be in minival or val, which data.append leaves as they are"]
    waiting = f"{count(layout.withheld, 'image')} wait{'s' * (layout.withheld == 1)}"
    return [f"{waiting} for the next val; this one, {layout.data.frozen_val!r}, is frozen"]


def _refuse_many_lost(data: Data, manifest: Manifest) -> None:
    """Rejects a set with many unusable images: a few are excluded and listed, many mean a damaged disk or download."""
    lost, total = len(manifest.quarantine), len(manifest.quarantine) + len(manifest.table)
    if lost > max(LOST_FEW, LOST_SHARE * total) and not data.allow_partial:
        notes = describe_notes(manifest.quarantine)
        raise ManyLostError(f"{data.name}: {lost} of {total} images cannot be used, {notes}{LOST_HINT}")


def write_shard(layout: ShardLayout, number: int, sink: IO[bytes]) -> dict[str, Any]:
    """Streams one tar into ``sink`` and returns its index; image bytes are copied unchanged.

    The index holds ``shard``, one list per column of ``TABLE``, ``quarantine`` and ``unusual``.
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

    for chunk in _read_chunks(layout, number):
        rows += ((row[0] + size, *row[1:]) for row in chunk.rows)
        remarks["quarantine"] += map(asdict, chunk.quarantine)
        remarks["unusual"] += map(asdict, chunk.unusual)
        with memoryview(chunk.buffer)[: chunk.size] as data:
            put(data)
    put(END)
    return _build_index(Shard(name, split, len(rows), size, digest.hexdigest()), rows, remarks)


def _build_index(shard: Shard, rows: Sequence[tuple[int, ...]], remarks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the index of a shard: ``shard``, one list per column of ``TABLE``, and the remarks."""
    columns = zip(*rows, strict=True) if rows else [()] * len(TABLE.names or ())
    return {"shard": shard_fields(shard), **remarks, **dict(zip(TABLE.names or (), columns, strict=True))}


def _write_missing(layout: ShardLayout, numbers: Sequence[int]) -> int:
    """Writes the shards of one tar that are not finished; returns their number."""
    if layout.addresses:
        missing = numbers if in_place.is_changed(layout, numbers) else []
    else:
        missing = [number for number in numbers if not store.exists(layout.index_uri(number))]
    if not missing:
        return 0
    if layout.addresses:
        _, readers = _pools(os.getpid())
        indexed = in_place.index_tar(layout, missing, readers, _count_reader_threads())
        indices = [_build_index(one.shard, one.rows, one.remarks) for one in indexed]
    else:
        [number] = missing
        with store.open_write(store.join(layout.root, layout.names[number])) as stream:
            indices = [write_shard(layout, number, stream)]
    for number, index in zip(missing, indices, strict=True):
        text = json.dumps(index, sort_keys=True, separators=(",", ":"))
        store.write(layout.index_uri(number), text.encode())
    return len(missing)


def _read_index(
    layout: ShardLayout, number: int
) -> tuple[Shard, NDArray[np.void], tuple[ImageNote, ...], tuple[ImageNote, ...]]:
    """Reads the index of one shard and verifies it against the size of the shard in the store."""
    uri = layout.index_uri(number)
    index = store.read_json(uri)
    try:
        shard = Shard(**index["shard"])
        table = np.zeros(shard.samples, TABLE)
        for column in TABLE.names or ():
            table[column] = np.array(index[column], TABLE[column]).reshape(shard.samples)
        quarantine, unusual = (tuple(ImageNote(**note) for note in index[key]) for key in ("quarantine", "unusual"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{uri} is not a shard index: {error}; delete it and run again") from error
    address = shard_uri(layout.root, shard)
    stored = store.size(address)
    if (shard.name, shard.bytes) != (layout.names[number], stored):
        raise DataError(
            f"{address} has {stored} bytes, its index says {shard.bytes} of {shard.name}; delete both and run again"
        )
    return shard, table, quarantine, unusual


def _read_chunks(layout: ShardLayout, number: int) -> Iterator[ShardChunk]:
    """Yields the chunks of a shard in order, while reader threads run a bounded number of chunks ahead.

    A chunk is valid until the next one is requested: its buffer is then reused.
    """
    _, readers = _pools(os.getpid())
    pending: deque[Future[ShardChunk]] = deque()
    free: list[bytearray] = []
    try:
        for indices, size in cuts(layout.source, layout.members[number]):
            buffer = free.pop() if free else bytearray(PIECE_BYTES)
            if len(buffer) < size:  # one large image
                buffer = bytearray(size)
            pending.append(readers.submit(cut, layout, layout.splits[number], indices, buffer))
            if len(pending) > _count_reader_threads():
                yield (chunk := pending.popleft().result())
                if len(chunk.buffer) <= 2 * PIECE_BYTES:
                    free.append(chunk.buffer)
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _count_reader_threads() -> int:
    return min(32, machine.cores() + 6)  # the source may be in an object store, where most threads wait


@lru_cache(maxsize=1)
def _pools(_process: int) -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
    """Returns the pools of shard writers and image readers, shared by the process so that memory is bounded.

    Keyed by process id, because threads do not survive a fork.
    """
    return ThreadPoolExecutor(SHARDS_AT_ONCE, "shard"), ThreadPoolExecutor(_count_reader_threads(), "image")
