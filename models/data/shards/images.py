"""Decodes a whole image with Pillow, the reference decoder that decides which images are usable."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from infra.errors import DataError
from models.data.sources.files.image_format import CONVERTIBLE, identify_content

MAX_PIXELS = 64 * 1024 * 1024  # a header that claims more is a decompression bomb; also in native/jpeg.h
_PNG = b"\x89PNG\r\n\x1a\n"
_SUBFILE_TYPE = 254  # tag of a TIFF page; bit 0: a reduced version of another page. Source: TIFF 6.0, section 8
_METADATA = (b"\xfe", *(bytes([0xE0 + number]) for number in range(16)))  # markers COM and APP0 ... APP15
_COLOUR_SPACE = (b"\xe0", b"\xee")  # APP0 (JFIF) and APP14 (Adobe)
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
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
        image: Image.Image = Image.open(io.BytesIO(_without_metadata(data)), formats=("JPEG", "PNG"))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"image claims {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if image.mode == "I;16":  # Pillow would clip 16-bit gray to white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image.info.pop("transparency", None)  # keep the colors under alpha; Pillow would warn
        return image.convert("RGB")
    except _DAMAGE as error:
        raise DataError(f"image of {len(data)} bytes does not decode: {error}") from error


def convert_to_png(data: bytes) -> tuple[bytes, str] | None:
    """Converts a WebP, BMP, GIF or TIFF to PNG with the same pixels; returns None for any other format.

    The first frame of several is taken. Identical bytes require the same Pillow version.

    Returns:
        The PNG, and a remark on its origin.

    Raises:
        DataError: The image is damaged, exceeds 64 megapixels, or its pixels do not fit into a PNG without loss.
    """
    kind = identify_content(data)  # raw images are TIFFs, too
    if kind not in CONVERTIBLE:
        return None
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=(kind.upper(),))
        frames = getattr(image, "n_frames", 1)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"image claims {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if kind == "TIFF" and image.getexif().get(_SUBFILE_TYPE, 0) & 1:
            raise DataError("a TIFF whose first page is a preview, as those of cameras' raw files; convert it first")
        if image.mode not in _PNG_MODES:
            raise DataError(f"a {kind} of mode {image.mode}, which a PNG cannot hold without loss")
        buffer = io.BytesIO()
        image.load()
        image.info.clear()  # no profiles or texts; of a palette image, transparency is ignored in training
        image.save(buffer, "PNG", compress_level=1)
    except _DAMAGE as error:
        raise DataError(f"{kind} of {len(data)} bytes does not decode: {error}") from error
    return buffer.getvalue(), f"converted from {kind}" + (f", first of {frames} frames" if frames > 1 else "")


def _without_metadata(data: bytes) -> bytes:
    """Strips what no pixel depends on: Pillow limits texts and colour profiles, and refuses images that exceed them."""
    return _strip_png(data) if data.startswith(_PNG) else _strip_jpeg(data)


def _strip_jpeg(data: bytes) -> bytes:
    """Removes the leading comments and application segments except JFIF and Adobe, which state the colour space."""
    if data[:2] != b"\xff\xd8":
        return data
    kept, at = [data[:2]], 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] in _METADATA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1 : at + 2] in _COLOUR_SPACE:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _strip_png(data: bytes) -> bytes:
    """Removes the ancillary chunks, whose type begins with a lower-case letter (ISO/IEC 15948, section 5.4)."""
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if not data[at + 4] & 0x20:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])
