"""Pieces of a shard: some samples as they will lie in its tar, read, looked at and laid out in one buffer.

An image is read from the source straight to where it leaves for the store, between its headers: between a page of
the source and the socket there is no other copy of it in Python, and no object.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import xxhash
from numpy.typing import NDArray

from infra.errors import DataError
from models.data.shards.image_check import ImageInfo, check_image, printable, shrink_image
from models.data.shards.layout import ShardLayout
from models.data.shards.manifest import ImageNote
from models.data.shards.tar_header import BLOCK, header
from models.data.sources.listing import MAX_IMAGE_BYTES, Source
from models.data.sources.reader import Reader

PIECE_IMAGES, PIECE_BYTES = 16, 2**20  # small: what is hashed and sent is then still in the processor's cache
_UNKNOWN_SIZE = 2**17  # of an image that is made on the fly
_LABEL_BYTES = 2 * BLOCK  # the member with the label
_HEAD_BYTES = _LABEL_BYTES + BLOCK  # of a sample, before its image
_ZEROS = bytes(BLOCK)


@dataclass(slots=True)
class ShardChunk:
    """Consecutive samples; ``rows`` as in the manifest's ``TABLE``, with offsets that start at this piece.

    Attributes:
        room: buffer; its first ``size`` bytes are what goes into the tar.
        size: bytes.
        rows: one for each sample that is in.
        quarantine: images that were left out.
        unusual: images that are in, and no plain RGB JPEG.
    """

    room: bytearray
    size: int = 0
    rows: list[tuple[int, ...]] = field(default_factory=list)
    quarantine: list[ImageNote] = field(default_factory=list)
    unusual: list[ImageNote] = field(default_factory=list)


def cuts(source: Source, members: NDArray[np.int64]) -> Iterator[tuple[list[int], int]]:
    """The images of a shard in pieces: their indices, and the bytes that they will take (about, where unknown)."""
    sizes = source.sizes[members]
    sizes = np.where(sizes > MAX_IMAGE_BYTES, 0, np.where(sizes > 0, sizes, _UNKNOWN_SIZE)) + _HEAD_BYTES + BLOCK
    piece: list[int] = []
    taken = 0
    for index, size in zip(members.tolist(), sizes.tolist(), strict=True):
        if piece and (len(piece) == PIECE_IMAGES or taken + size > PIECE_BYTES):
            yield piece, taken
            piece, taken = [], 0
        piece.append(index)
        taken += size
    if piece:
        yield piece, taken


def cut(layout: ShardLayout, split: str, indices: list[int], room: bytearray) -> ShardChunk:
    """Reads and looks at some images of one split.

    Raises:
        DataError: bytes of the source are not there, which is no damaged image.
        TransientError: a source in an object store does not answer.
    """
    piece, source = ShardChunk(room), layout.source
    for index in indices:
        stated = int(source.sizes[index])
        try:
            if stated > MAX_IMAGE_BYTES:
                raise _UnusableError(f"{stated} bytes, more than {MAX_IMAGE_BYTES}")
            found = _append(layout, piece, index)
        except _UnusableError as error:
            piece.quarantine.append(ImageNote(printable(source.names[index]), split, str(error)))
            continue
        if found.unusual:
            piece.unusual.append(ImageNote(printable(source.names[index]), split, found.unusual))
    return piece


class _UnusableError(Exception):
    """An image that stays out of the shards; the message says why."""


def _append(layout: ShardLayout, piece: ShardChunk, index: int) -> ImageInfo:
    """Adds one sample at the end of a piece."""
    source, start = layout.source, piece.size + _HEAD_BYTES
    size = _read(source, piece, index, start)
    try:
        found, size, height = _judged(layout, piece, index, start, size)
    except DataError as error:
        raise _UnusableError(str(error)) from error
    label, room, end = int(source.labels[index]), piece.room, start + size
    text, padding = b"%d" % label, -size % BLOCK
    room[piece.size : start] = b"".join(
        (
            header(b"%08d.cls" % index, len(text)),
            text,
            _ZEROS[len(text) :],
            header(b"%08d.%s" % (index, found.suffix.encode()), size),
        )
    )
    room[end : end + padding] = _ZEROS[:padding]  # the buffer was used before
    with memoryview(room)[start:end] as image:
        piece.rows.append((start, size, label, found.width, height, xxhash.xxh3_64_intdigest(image)))
    piece.size = end + padding
    return found


def _judged(layout: ShardLayout, piece: ShardChunk, index: int, start: int, size: int) -> tuple[ImageInfo, int, int]:
    """What an image is, its size in the piece, and the height that boxes are drawn for.

    Raises:
        DataError: it cannot be used.
    """
    source, data = layout.source, layout.data
    name = printable(source.names[index])
    if data.max_side is None:
        with memoryview(piece.room)[start : start + size] as image:
            found = whole = check_image(image, name, decode=data.verify_images)
    else:
        original = bytes(piece.room[start : start + size])
        whole = check_image(original, name, decode=data.verify_images)
        small, found = shrink_image(original, whole, data.max_side)
        size = _put(piece, small, start)
    # A banner at the lower edge shrinks with its image.
    return found, size, found.height - math.ceil(source.crop_bottom * found.height / whole.height)


def _read(source: Source, piece: ShardChunk, index: int, start: int) -> int:
    """Brings the bytes of an image to ``start``; how many they are."""
    if not isinstance(source.read, Reader):
        return _put(piece, source.read(index), start)
    size = int(source.read.sizes[index])
    _reserve(piece, start + size)
    with memoryview(piece.room)[start : start + size] as target:
        source.read.into(index, target)
    return size


def _put(piece: ShardChunk, data: bytes, start: int) -> int:
    _reserve(piece, start + len(data))
    piece.room[start : start + len(data)] = data
    return len(data)


def _reserve(piece: ShardChunk, end: int) -> None:
    """Makes sure that an image can end at ``end``; only what is made on the fly ever needs more than was taken."""
    if end + BLOCK > len(piece.room):
        piece.room = piece.room + bytes(end + BLOCK)
