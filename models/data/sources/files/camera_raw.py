"""Tells raw images of cameras, most of which are TIFFs whose first page is a preview.

Source of suffixes and tags: ExifTool's tag names (exiftool.org/TagNames/EXIF.html); DNG 1.7, appendix A.
"""

from __future__ import annotations

from collections.abc import Iterator

SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc", ".mef"),
    *(".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
_COMPRESSION, _PHOTOMETRIC, _SUB_PAGES, _DNG_VERSION = 259, 262, 330, 50706
_SENSOR = (32803, 34892)  # photometric interpretation: colour filter array, linear raw
_COMPRESSIONS = (32767, 32769, 32770, 34713, 65000, 65535)  # of Sony, packed, Samsung, Nikon, Kodak and Pentax
_CLASSIC = (b"*\0", b"\0*")  # of a TIFF below 4 GiB, as all raw images are
_MAX_PAGES, _MAX_TAGS = 20, 1_000
_BYTES = {3: 2, 4: 4, 13: 4}  # of a value, by the type of a tag: short, long, place of a page


def is_raw(data: bytes) -> bool:
    """Whether a TIFF has pixels of a sensor on a page, which its preview does not.

    Args:
        data: The whole file, or as much of it as is known: pages beyond its end do not count.
    """
    for tags in _read_pages(data) if data[2:4] in _CLASSIC else ():
        if _DNG_VERSION in tags or not set(_SENSOR).isdisjoint(tags.get(_PHOTOMETRIC, ())):
            return True
        if not set(_COMPRESSIONS).isdisjoint(tags.get(_COMPRESSION, ())):
            return True
    return False


def _read_pages(data: bytes) -> Iterator[dict[int, list[int]]]:
    """Yields the tags of each page of a TIFF and of the pages in these, without values that are no whole numbers."""
    order = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]

    pending, seen = [number(4, 4)], set[int]()
    while pending and len(seen) < _MAX_PAGES:
        at = pending.pop(0)
        if at in seen or not 0 < at < len(data):
            continue
        seen.add(at)
        count = min(number(at, 2), _MAX_TAGS)
        tags: dict[int, list[int]] = {}
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            size, values = _BYTES.get(number(entry + 2, 2), 0), min(number(entry + 4, 4), _MAX_PAGES)
            start = entry + 8 if size * values <= 4 else number(entry + 8, 4)
            tags[number(entry, 2)] = [number(start + i * size, size) for i in range(values)] if size else []
        pending += [*tags.get(_SUB_PAGES, ()), number(at + 2 + 12 * count, 4)]
        yield tags
