"""Parses the headers of JPEG and PNG in a few microseconds, without decoding.

Source: ITU-T T.81 annex B (markers and frame header), ISO/IEC 15948 section 11.2.2 (IHDR), Exif 2.3 tag 0x0112.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

from infra.errors import DataError
from models.data.sources.files.image_format import EMPTY, UNKNOWN, describe_kind, identify_content

_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; not lossless, hierarchical, arithmetic
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)  # not stuffed bytes or restart markers in a scan
_MAX_MARKERS = 10_000  # 10 MB of EXIF are 160
_WINDOW = 4096
_ORIENTATION = 0x0112
_PNG_COLORS = {0: "", 2: "", 3: "palette", 4: "alpha", 6: "alpha"}


class Header(NamedTuple):
    """Header fields: ``suffix`` (jpg or png) by content; ``remarks`` list deviations from plain 8-bit gray or RGB."""

    suffix: str
    width: int
    height: int
    remarks: tuple[str, ...]


def parse(data: bytes | memoryview) -> Header:
    """Reads the format and the size in pixels.

    Raises:
        DataError: Neither JPEG nor PNG, an unsupported kind, or truncated before the size.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    if data[:8] == _PNG:
        return _png(data)
    kind = identify_content(bytes(data))
    what = "neither JPEG nor PNG" + (f", but {describe_kind(kind)}" if kind != UNKNOWN else "")
    raise DataError(describe_kind(kind) if kind == EMPTY else what)


def _jpeg(data: bytes | memoryview) -> Header:
    at, remarks = 2, list[str]()
    for _ in range(_MAX_MARKERS):
        if at + 4 > len(data) or (marker := data[at + 1]) in (_SCAN, _END):
            break
        if data[at] != 0xFF or marker == 0:  # not a marker: skip to the next one, as libjpeg does
            at = _next_marker(data, at + 1)
        elif marker == 0xFF:  # markers may be padded
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            return _frame(data, at, remarks)
        else:
            length = data[at + 2] << 8 | data[at + 3]
            if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0" and not remarks:
                orientation = _orientation(data[at + 10 : at + 2 + length])
                remarks = [f"EXIF orientation {orientation}, ignored"] if orientation > 1 else []
            at += 2 + max(length, 2)
    raise DataError("a JPEG without a frame header")


def scans(data: bytes) -> int:
    """Counts the scans of a JPEG that ``parse`` accepts; each costs a decoder one pass over all pixels."""
    at, count = 2, 0
    while (match := _MARKER.search(data, at)) is not None and (marker := match[1][0]) != _END:
        count += marker == _SCAN
        at = match.end()
        if marker not in _ALONE:
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)
    return count


def find_damaged_chunk(data: bytes) -> str:
    """Returns the type of a PNG's first critical chunk whose checksum is wrong; empty if there is none.

    Pillow does not compare the checksums of the pixels, and may decode a damaged stream to other pixels.
    """
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        is_critical = not data[at + 4] & 0x20
        if is_critical and end <= len(data):
            checksum = int.from_bytes(data[end - 4 : end], "big")
            if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != checksum:
                return data[at + 4 : at + 8].decode("latin-1")
        at = end
    return ""


def _next_marker(data: bytes | memoryview, at: int) -> int:
    """Returns the position of the next 0xFF, or the end of the data."""
    for start in range(at, len(data), _WINDOW):
        position = bytes(data[start : start + _WINDOW]).find(b"\xff")
        if position >= 0:
            return start + position
    return len(data)


def _frame(data: bytes | memoryview, at: int, remarks: list[str]) -> Header:
    marker, frame = data[at + 1], data[at + 4 : at + 10]
    if len(frame) < 6:
        raise DataError("a JPEG that ends in its frame header")
    bits, height, width, components = frame[0], frame[1] << 8 | frame[2], frame[3] << 8 | frame[4], frame[5]
    if marker not in _HUFFMAN_FRAMES or bits != 8 or components not in (1, 3, 4):
        raise DataError(f"a JPEG of kind {marker:#x} with {components} components of {bits} bits")
    return Header("jpg", width, height, (*(["CMYK JPEG"] if components == 4 else []), *remarks))


def _orientation(tiff: bytes | memoryview) -> int:
    """Returns the EXIF orientation, or 1 (upright) if it is absent or unreadable."""
    if tiff[:2] not in (b"II", b"MM"):
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if tiff[:1] == b"I" else "big")  # beyond the end: 0

    first = number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * min(number(first, 2), 200), 12):
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _png(data: bytes | memoryview) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise DataError("a PNG without a header")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits, color = data[24], data[25]
    if color not in _PNG_COLORS:
        raise DataError(f"a PNG of unknown colour type {color}")
    remarks = (_PNG_COLORS[color], "16 bits" if bits == 16 else "")
    return Header("png", width, height, tuple(f"PNG with {remark}" for remark in remarks if remark))
