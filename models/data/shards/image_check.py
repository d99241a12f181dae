"""Validates every image during sharding: its size, what is unusual about it, or why it is excluded.

Every image in a shard has been decoded here, by the decoder that the faster ones fall back to, so no image fails to
decode in the middle of a training run.
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

MAX_SIDE = 65_535  # maximum of the manifest's table
MAX_SCANS = 100  # per JPEG; each is a pass over all its pixels. Encoders write about 10.
MAX_SCANNED_PIXELS = 10 * MAX_PIXELS  # of a JPEG with more scans: as many as the largest image has in ten
JPEG_QUALITY = 90  # of re-encoded images; as FFCV's ImageNet
_LARGE_PIXELS = 8 * 2**20  # larger images are decoded one at a time: 64 megapixels take 500 MB in Pillow
_LARGE = threading.Lock()
_ADDRESS = re.compile(r" ?<_io\.BytesIO object at 0x[0-9a-f]+>")


class ImageInfo(NamedTuple):
    """Kind and size of an image: ``suffix`` (jpg or png) by content; ``unusual`` is empty for plain gray or RGB."""

    suffix: str
    width: int
    height: int
    unusual: str


def check_image(data: bytes | memoryview, name: str, *, decode: bool) -> ImageInfo:
    """Validates one encoded image.

    Args:
        data: Encoded bytes as the source provides them.
        name: Official name; its suffix may be wrong.
        decode: Whether to decode the whole image; otherwise only the header is read.

    Raises:
        DataError: The image cannot be used; the message gives the reason.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise DataError(f"{len(data)} bytes, more than {MAX_IMAGE_BYTES}")
    header = image_header.parse(data)
    if header.width * header.height > MAX_PIXELS or not 0 < min(header[1:3]) <= max(header[1:3]) <= MAX_SIDE:
        raise DataError(f"its header claims {header.width} x {header.height} pixels")
    if decode:
        data = bytes(data)
        if header.suffix == "jpg" and (scans := image_header.scans(data)) > MAX_SCANS:
            pixels = scans * header.width * header.height
            if pixels > MAX_SCANNED_PIXELS:
                raise DataError(f"a JPEG of {scans} scans, which are {pixels:,} pixels to decode")
        if header.suffix == "png" and (chunk := image_header.find_damaged_chunk(data)):
            raise DataError(f"a PNG whose chunk {escaped(chunk)} has a wrong checksum")
        with _decoding(header.width * header.height):
            width, height = open_image(data).size
        if (width, height) != header[1:3]:
            raise DataError(f"{width} x {height} pixels, its header claims {header.width} x {header.height}")
    remarks = list(header.remarks)
    if header.suffix == "png" and not name.lower().endswith(".png"):
        remarks.insert(0, f"PNG named {_suffix_of(name)}")
    return ImageInfo(header.suffix, header.width, header.height, ", ".join(remarks))


def shrink_image(data: bytes, info: ImageInfo, max_side: int) -> tuple[bytes, ImageInfo]:
    """Shrinks an image to a JPEG of at most ``max_side`` pixels per side, as the loader resizes; keeps smaller ones.

    Identical bytes require the same Pillow version: another libjpeg may round differently.

    Raises:
        DataError: The image does not decode.
    """
    longest = max(info.width, info.height)
    if longest <= max_side:
        return data, info
    size = tuple(max(1, round(side * max_side / longest)) for side in (info.width, info.height))
    buffer = io.BytesIO()
    with _decoding(info.width * info.height):
        open_image(data).resize((size[0], size[1]), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), ImageInfo("jpg", size[0], size[1], "")


def printable(name: bytes) -> str:
    """Returns an image name for messages and lists, with terminal control characters escaped."""
    return escaped(name.decode(errors="backslashreplace"))


@contextmanager
def _decoding(pixels: int) -> Iterator[None]:
    """Bounds memory, and reduces Pillow's errors on damaged images to one line that is identical in every run."""
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
