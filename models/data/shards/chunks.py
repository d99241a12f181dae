"""Chunks of a shard: consecutive samples, read, validated and laid out as in the tar, in one buffer.

An image is read from the source directly into its place between the tar headers, from where it is sent to the store:
Python makes no other copy of it and no object.
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
from models.data.shards.images import convert_to_png
from models.data.shards.layout import ShardLayout
from models.data.shards.manifest import ImageNote
from models.data.shards.tar_header import BLOCK, header
from models.data.sources.files.reader import Reader
from models.data.sources.listing import MAX_IMAGE_BYTES, Source, content_digest

PIECE_IMAGES, PIECE_BYTES = 16, 2**20  # small, so that hashing and sending hit the CPU cache
_UNKNOWN_SIZE = 2**17  # estimate for an image generated on the fly
_LABEL_BYTES = 2 * BLOCK  # the tar member of the label
_HEAD_BYTES = _LABEL_BYTES + BLOCK  # bytes of a sample before its image
_ZEROS = bytes(BLOCK)


@dataclass(slots=True)
class ShardChunk:
    """Consecutive samples; ``rows`` as in the manifest's ``TABLE``, with offsets relative to this chunk.

    Attributes:
        buffer: Buffer whose first ``size`` bytes go into the tar.
        size: Number of bytes used.
        rows: One row per included sample.
        quarantine: Excluded images.
        unusual: Included images that are not plain RGB JPEG.
    """

    buffer: bytearray
    size: int = 0
    rows: list[tuple[int, ...]] = field(default_factory=list)
    quarantine: list[ImageNote] = field(default_factory=list)
    unusual: list[ImageNote] = field(default_factory=list)


def cuts(source: Source, members: NDArray[np.int64]) -> Iterator[tuple[list[int], int]]:
    """Divides the images of a shard into chunks; yields their indices and bytes (estimated where unknown)."""
    sizes = source.sizes[members]
    sizes = np.where(sizes > MAX_IMAGE_BYTES, 0, np.where(sizes > 0, sizes, _UNKNOWN_SIZE)) + _HEAD_BYTES + BLOCK
    chunk: list[int] = []
    chunk_bytes = 0
    for index, size in zip(members.tolist(), sizes.tolist(), strict=True):
        if chunk and (len(chunk) == PIECE_IMAGES or chunk_bytes + size > PIECE_BYTES):
            yield chunk, chunk_bytes
            chunk, chunk_bytes = [], 0
        chunk.append(index)
        chunk_bytes += size
    if chunk:
        yield chunk, chunk_bytes


def cut(layout: ShardLayout, split: str, indices: list[int], buffer: bytearray) -> ShardChunk:
    """Reads and validates some images of one split.

    Raises:
        ChangedError: An image has changed since its split was chosen.
        DataError: Bytes of the source are missing, as opposed to a damaged image.
        TransientError: The object store of the source does not respond.
    """
    chunk, source = ShardChunk(buffer), layout.source
    for index in indices:
        stated = int(source.sizes[index])
        try:
            if stated > MAX_IMAGE_BYTES:
                raise _UnusableError(f"{stated} bytes, more than {MAX_IMAGE_BYTES}")
            info = _append(layout, chunk, index)
        except _UnusableError as error:
            chunk.quarantine.append(ImageNote(printable(source.names[index]), split, str(error)))
            continue
        if info.unusual:
            chunk.unusual.append(ImageNote(printable(source.names[index]), split, info.unusual))
    return chunk


class ChangedError(DataError):
    """An image has another content than the digest on which its split depends."""


class _UnusableError(Exception):
    """An image to exclude from the shards; the message gives the reason."""


def _append(layout: ShardLayout, chunk: ShardChunk, index: int) -> ImageInfo:
    """Appends one sample to a chunk."""
    source, start = layout.source, chunk.size + _HEAD_BYTES
    size = _read(source, chunk, index, start)
    if source.content is not None:
        with memoryview(chunk.buffer)[start : start + size] as image:
            if content_digest(image) != source.content[index]:
                raise ChangedError(
                    f"{printable(source.names[index])} has changed since its split was chosen; repeat the command"
                )
    try:
        info, size, height = _inspect(layout, chunk, index, start, size)
    except DataError as error:
        raise _UnusableError(str(error)) from error
    label, buffer, end = int(source.labels[index]), chunk.buffer, start + size
    text, padding = b"%d" % label, -size % BLOCK
    buffer[chunk.size : start] = b"".join(
        (
            header(b"%08d.cls" % index, len(text)),
            text,
            _ZEROS[len(text) :],
            header(b"%08d.%s" % (index, info.suffix.encode()), size),
        )
    )
    buffer[end : end + padding] = _ZEROS[:padding]  # the buffer is reused
    with memoryview(buffer)[start:end] as image:
        chunk.rows.append((start, size, label, info.width, height, xxhash.xxh3_64_intdigest(image)))
    chunk.size = end + padding
    return info


def _inspect(layout: ShardLayout, chunk: ShardChunk, index: int, start: int, size: int) -> tuple[ImageInfo, int, int]:
    """Validates an image; returns its info, its bytes in the chunk, and the height available to crops.

    Raises:
        DataError: The image cannot be used.
    """
    source, data = layout.source, layout.data
    name, origin = printable(source.names[index]), ""
    if data.convert and (png := convert_to_png(bytes(chunk.buffer[start : start + size]))):
        size, origin = _put(chunk, png[0], start), png[1]
        name = f"{name}.png"
    if data.max_side is None:
        with memoryview(chunk.buffer)[start : start + size] as image:
            info = whole = check_image(image, name, decode=data.verify_images)
    else:
        original = bytes(chunk.buffer[start : start + size])
        whole = check_image(original, name, decode=data.verify_images)
        small, info = shrink_image(original, whole, data.max_side)
        size = _put(chunk, small, start)
    if origin:
        info = info._replace(unusual=", ".join(filter(None, (origin, info.unusual))))
    # A banner at the lower edge shrinks with the image.
    return info, size, info.height - math.ceil(source.crop_bottom * info.height / whole.height)


def _read(source: Source, chunk: ShardChunk, index: int, start: int) -> int:
    """Reads an image to ``start`` of the buffer; returns its number of bytes."""
    if not isinstance(source.read, Reader):
        return _put(chunk, source.read(index), start)
    size = int(source.read.sizes[index])
    _reserve(chunk, start + size)
    with memoryview(chunk.buffer)[start : start + size] as target:
        source.read.into(index, target)
    return size


def _put(chunk: ShardChunk, data: bytes, start: int) -> int:
    _reserve(chunk, start + len(data))
    chunk.buffer[start : start + len(data)] = data
    return len(data)


def _reserve(chunk: ShardChunk, end: int) -> None:
    """Grows the buffer so that an image can end at ``end``; only images generated on the fly ever need it."""
    if end + BLOCK > len(chunk.buffer):
        chunk.buffer = chunk.buffer + bytes(end + BLOCK)
