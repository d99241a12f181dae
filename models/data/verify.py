"""Every image is looked at once, when it is sharded: what it measures, what is unusual, or why it is left out.

What enters a shard has been decoded here, so nothing fails to decode in the middle of a training.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from infra.errors import DataError
from models.data.decode import MAX_PIXELS, open_image

MAX_BYTES = 50 * 2**20  # no photograph of these sets comes near
MAX_SIDE = 65_535  # what the manifest's table can hold


@dataclass(frozen=True)
class Verdict:
    """``suffix``: jpg or png by content, not by name. ``unusual``: empty for a plain grey or RGB JPEG."""

    suffix: str
    width: int
    height: int
    unusual: str


def verdict(data: bytes, name: str, *, decode: bool) -> Verdict:
    """Looks at one encoded image.

    Args:
        data: as the source gives it.
        name: official name, whose suffix may lie.
        decode: decode all of it; otherwise only the header is read.

    Raises:
        DataError: why it cannot be used.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{len(data)} bytes, more than {MAX_BYTES}")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            kind, mode, (width, height) = str(image.format), image.mode, image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"neither JPEG nor PNG: {_one_line(error)}") from error
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DataError(f"its header claims {width} x {height} pixels")
    if decode:
        open_image(data)
    return Verdict("png" if kind == "PNG" else "jpg", width, height, _unusual(kind, mode, name))


def _unusual(kind: str, mode: str, name: str) -> str:
    if kind == "PNG":
        return f"PNG ({mode})" + ("" if name.lower().endswith(".png") else " named otherwise")
    return "" if mode in ("RGB", "L") else f"JPEG ({mode})"


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
