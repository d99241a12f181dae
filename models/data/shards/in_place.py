"""Indexes foreign tars where they are: a manifest whose shards are their tars, of which nothing is copied.

A tar is read in order: its BLAKE3 is computed, and every image of it is validated as in ``chunks.py``. Its samples keep
their places, so a shard is the part of a tar that belongs to one split, and the loader reads it by its address. The
splits are those of the shards that would be written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import xxhash
from blake3 import blake3

from conf.text import logger
from infra import store
from infra.errors import DataError, NotFoundError, TransientError
from models.data.shards.image_check import check_image, printable
from models.data.shards.layout import ShardLayout, by_tar
from models.data.shards.manifest import ImageNote, Shard
from models.data.sources.files.reader import Reader
from models.data.sources.listing import MAX_IMAGE_BYTES

log = logger()
_PIECE_BYTES = 4 * 2**20  # that are read and hashed at a time, unless an image is larger
_LOOKUPS_AT_ONCE = 16
_FEW = 0.5  # share of the classes that a shuffled tar would have, below which tars count as sorted by class


class _Sample(NamedTuple):
    """An image of a tar: the number of its shard, its number in the source, and its place."""

    shard: int
    image: int
    offset: int
    size: int


class _Piece(NamedTuple):
    """The bytes ``[start, end)`` of a tar, and the images that are wholly inside."""

    start: int
    end: int
    samples: list[_Sample]


class _Checked(NamedTuple):
    """The bytes of a piece, and of each image its row of ``TABLE`` or the reason for its exclusion, and a remark."""

    data: bytes
    images: list[tuple[_Sample, tuple[int, ...] | None, str]]


class IndexedShard(NamedTuple):
    """A shard, its rows of ``TABLE``, and what is stored beside them in its index."""

    shard: Shard
    rows: list[tuple[int, ...]]
    remarks: dict[str, Any]


def index_tar(
    layout: ShardLayout, numbers: Sequence[int], readers: ThreadPoolExecutor, ahead: int
) -> list[IndexedShard]:
    """Reads a tar once and indexes those of its shards with the given numbers, in this order.

    Args:
        layout: Layout with addresses.
        numbers: Numbers of shards of one tar.
        readers: Threads that read and validate.
        ahead: Number of pieces that they may be ahead of the digest.

    Raises:
        DataError: The tar is shorter than it was when its headers were read.
        TransientError: It was written while it was read, or the store does not respond.
    """
    address = layout.addresses[numbers[0]]
    entry = store.find_entry(address)
    digest = blake3()
    rows: dict[int, list[tuple[int, ...]]] = {number: [] for number in numbers}
    remarks: dict[int, dict[str, Any]] = {
        number: {"quarantine": [], "unusual": [], "modified": entry.modified} for number in numbers
    }

    def note(key: str, sample: _Sample, what: str) -> None:
        name, split = printable(layout.source.names[sample.image]), layout.splits[sample.shard]
        remarks[sample.shard][key].append(asdict(ImageNote(name, split, what)))

    samples = _list_samples(layout, numbers)
    if (end := samples[-1].offset + samples[-1].size) > entry.size:
        raise DataError(f"{address} has {entry.size} bytes, its headers stated {end} or more; did the file change?")
    for sample in samples:
        if sample.size > MAX_IMAGE_BYTES:  # not read into memory
            note("quarantine", sample, f"{sample.size} bytes, more than {MAX_IMAGE_BYTES}")
    pieces = _cut([sample for sample in samples if sample.size <= MAX_IMAGE_BYTES], entry.size)
    for checked in _read_pieces(layout, address, pieces, readers, ahead):
        digest.update(checked.data)
        for sample, row, what in checked.images:
            if row is None:
                note("quarantine", sample, what)
                continue
            rows[sample.shard].append(row)
            if what:
                note("unusual", sample, what)
    if store.find_entry(address) != entry:
        raise TransientError(f"{address} was written while it was read; run the command again")
    return [
        IndexedShard(
            Shard(
                layout.names[number], layout.splits[number], len(rows[number]), entry.size, digest.hexdigest(), address
            ),
            rows[number],
            remarks[number],
        )
        for number in numbers
    ]


def find_changed(layout: ShardLayout) -> list[int]:
    """Returns the numbers of the shards of changed tars."""
    tars = by_tar(layout, range(len(layout.names)))
    with ThreadPoolExecutor(_LOOKUPS_AT_ONCE) as pool:
        changed = pool.map(lambda numbers: is_changed(layout, numbers), tars)
        return [number for numbers, has_changed in zip(tars, changed, strict=True) if has_changed for number in numbers]


def is_changed(layout: ShardLayout, numbers: Sequence[int]) -> bool:
    """Returns whether a tar, whose shards have these numbers, is not indexed, or was written after it was."""
    try:
        indices = [store.read_json(layout.index_uri(number)) for number in numbers]
        entry = store.find_entry(layout.addresses[numbers[0]])
        return any((one["modified"], one["shard"]["bytes"]) != (entry.modified, entry.size) for one in indices)
    except (NotFoundError, KeyError, TypeError):
        return True


def warn_if_sorted(layout: ShardLayout) -> None:
    """Logs that tars hold few classes each: the loader mixes the samples of a few tars only."""
    labels = [
        layout.source.labels[part]
        for part, split in zip(layout.members, layout.splits, strict=True)
        if split == "train"
    ]
    shares = np.bincount(np.concatenate(labels)) / sum(map(len, labels))
    present = float(np.mean([len(set(part.tolist())) for part in labels]))
    expected = float(np.mean([(1 - (1 - shares) ** len(part)).sum() for part in labels]))
    if present < _FEW * expected:
        log.warning(
            "%s: its tars hold %.1f classes on average, %.1f if they were shuffled: training mixes the samples of a "
            "few tars at a time, so batches hold few classes; data.shards=rewritten shuffles the whole set",
            *(layout.data.name, present, expected),
        )


def _list_samples(layout: ShardLayout, numbers: Sequence[int]) -> list[_Sample]:
    """Returns the images of shards of one tar, in the order of the tar."""
    reader = layout.source.read
    if not isinstance(reader, Reader):
        raise TypeError(f"tars that are read in place are read by {type(reader).__name__}")
    samples = (
        _Sample(number, index, int(reader.offsets[index]), int(reader.sizes[index]))
        for number in numbers
        for index in layout.members[number].tolist()
    )
    return sorted(samples, key=lambda sample: sample.offset)


def _cut(samples: Sequence[_Sample], size: int) -> Iterator[_Piece]:
    """Divides a tar of ``size`` bytes into pieces that end after an image, or anywhere between two images."""
    start, end, inside = 0, 0, list[_Sample]()
    for sample in (*samples, _Sample(-1, -1, size, 0)):  # the last one stands for the end of the tar
        while sample.offset - start > _PIECE_BYTES:  # what precedes the image may be long
            end = max(end, min(start + _PIECE_BYTES, sample.offset))
            yield _Piece(start, end, inside)
            start, inside = end, []
        end = sample.offset + sample.size
        if sample.image >= 0:
            inside.append(sample)
    if end > start:
        yield _Piece(start, end, inside)


def _read_pieces(
    layout: ShardLayout, address: str, pieces: Iterator[_Piece], readers: ThreadPoolExecutor, ahead: int
) -> Iterator[_Checked]:
    """Yields the pieces in order, while threads read and validate a bounded number of them ahead."""
    pending: deque[Future[_Checked]] = deque()
    try:
        for piece in pieces:
            pending.append(readers.submit(_check_piece, layout, address, piece))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _check_piece(layout: ShardLayout, address: str, piece: _Piece) -> _Checked:
    data = store.read_range(address, piece.start, piece.end - piece.start)
    images: list[tuple[_Sample, tuple[int, ...] | None, str]] = []
    for sample in piece.samples:
        at = sample.offset - piece.start
        image = data[at : at + sample.size]
        try:
            info = check_image(image, printable(layout.source.names[sample.image]), decode=layout.data.verify_images)
        except DataError as error:
            images.append((sample, None, str(error)))
            continue
        label = int(layout.source.labels[sample.image])
        checksum = xxhash.xxh3_64_intdigest(image)
        images.append((sample, (sample.offset, sample.size, label, info.width, info.height, checksum), info.unusual))
    return _Checked(data, images)
