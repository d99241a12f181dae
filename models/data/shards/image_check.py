"""Every image is looked at once, when it is sharded: what it measures, what is unusual, or why it is left out.

What enters a shard has been decoded here, by the decoder that all others leave the hard cases to, so nothing fails
to decode in the middle of a training.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import Image

from conf.text import escaped
from infra.errors import DataError, first_line
from models.data.shards import image_header
from models.data.shards.images import MAX_PIXELS, open_image
from models.data.sources.listing import MAX_IMAGE_BYTES

MAX_SIDE = 65_535  # what the manifest's table can hold
MAX_SCANS = 100  # of a JPEG; each is a pass over all its pixels. An encoder makes about 10.
JPEG_QUALITY = 90  # of what is encoded again; as FFCV's ImageNet
_LARGE_PIXELS = 8 * 2**20  # beyond, one at a time: 64 megapixels take 500 MB in Pillow
_LARGE = threading.Lock()
_ADDRESS = re.compile(r" ?<_io\.BytesIO object at 0x[0-9a-f]+>")


class ImageInfo(NamedTuple):
    """``suffix``: jpg or png by content, not by name. ``unusual``: empty for a plain grey or RGB image."""

    suffix: str
    width: int
    height: int
    unusual: str


def check_image(data: bytes | memoryview, name: str, *, decode: bool) -> ImageInfo:
    """Looks at one encoded image.

    Args:
        data: as the source gives it.
        name: official name, whose suffix may lie.
        decode: decode all of it; otherwise only the header is read.

    Raises:
        DataError: why it cannot be used.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise DataError(f"{len(data)} bytes, more than {MAX_IMAGE_BYTES}")
    found = image_header.parse(data)
    if found.width * found.height > MAX_PIXELS or not 0 < min(found[1:3]) <= max(found[1:3]) <= MAX_SIDE:
        raise DataError(f"its header claims {found.width} x {found.height} pixels")
    if decode:
        data = bytes(data)
        if found.suffix == "jpg" and image_header.scans(data) > MAX_SCANS:
            raise DataError(f"a JPEG of more than {MAX_SCANS} scans")
        with _decoding(found.width * found.height):
            width, height = open_image(data).size
        if (width, height) != found[1:3]:
            raise DataError(f"{width} x {height} pixels, its header claims {found.width} x {found.height}")
    remarks = list(found.remarks)
    if found.suffix == "png" and not name.lower().endswith(".png"):
        remarks.insert(0, f"PNG named {_suffix_of(name)}")
    return ImageInfo(found.suffix, found.width, found.height, ", ".join(remarks))


def shrink_image(data: bytes, found: ImageInfo, max_side: int) -> tuple[bytes, ImageInfo]:
    """The image as JPEG of at most ``max_side`` pixels a side, resized as the loader does; small ones as they are.

    Equal bytes need an equal Pillow: another version of libjpeg may round otherwise.

    Raises:
        DataError: it does not decode.
    """
    longest = max(found.width, found.height)
    if longest <= max_side:
        return data, found
    size = tuple(max(1, round(side * max_side / longest)) for side in (found.width, found.height))
    buffer = io.BytesIO()
    with _decoding(found.width * found.height):
        open_image(data).resize((size[0], size[1]), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), ImageInfo("jpg", size[0], size[1], "")


def printable(name: bytes) -> str:
    """An image's name for messages and lists: what a terminal would obey is escaped."""
    return escaped(name.decode(errors="backslashreplace"))


@contextmanager
def _decoding(pixels: int) -> Iterator[None]:
    """Bounds memory, and turns whatever damage does to Pillow into one line that is equal in every run."""
    try:
        if pixels > _LARGE_PIXELS:
            with _LARGE:
                yield
        else:
            yield
    except DataError as error:
        raise DataError(_ADDRESS.sub("", first_line(error))) from error


def _suffix_of(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix}" if stem else "otherwise"
