"""Decodes a whole image with Pillow, the reference decoder that decides which images are usable."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from infra.errors import DataError

MAX_PIXELS = 64 * 1024 * 1024  # a header that claims more is a decompression bomb; also in native/jpeg.h
_APPLICATION = [bytes([0xE0 + number]) for number in range(16)]  # markers APP0 ... APP15
# Exceptions that Pillow's parsers raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    EOFError,
    OverflowError,
    AttributeError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def open_image(data: bytes) -> Image.Image:
    """Decodes a JPEG or PNG to RGB as stored, ignoring the EXIF orientation.

    Raises:
        DataError: The image has another format, is truncated, or exceeds 64 megapixels.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(_without_exif(data)), formats=("JPEG", "PNG"))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"image claims {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if image.mode == "I;16":  # Pillow would clip 16-bit gray to white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image.info.pop("transparency", None)  # keep the colors under alpha; Pillow would warn
        return image.convert("RGB")
    except _DAMAGE as error:
        raise DataError(f"image of {len(data)} bytes does not decode: {error}") from error


def _without_exif(data: bytes) -> bytes:
    """Strips the leading EXIF segments of a JPEG, which Pillow would parse and warn about if malformed."""
    if data[:2] != b"\xff\xd8":
        return data
    kept, at = [data[:2]], 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] in _APPLICATION:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 4 : at + 8] != b"Exif":
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])
