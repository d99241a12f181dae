"""Names files that hold annotations of a kind that has no class for each image, or is not read, and says what to do.

Sources of the layouts: a JSON with ``shapes`` for each image of github.com/wkentaro/labelme; an XML with ``object`` for
each image of Pascal VOC and LabelImg; a text of ``class x y width height`` for each image of Ultralytics YOLO;
``annotations.xml`` of CVAT (docs.cvat.ai, CVAT for images); ``via_region_data.json`` of the VGG Image Annotator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.data.sources.files.archive import Files
from models.data.sources.tables.image_names import index_images
from models.data.sources.tables.reading import MAX_BYTES, decode

_BEGINNING = 2**16  # bytes of a file that are searched
_YOLO = re.compile(r"(?:\d+(?: +-?[\d.]+(?:e-?\d+)?){4,}\s*)+", re.IGNORECASE)
_FORMS = (
    (".json", re.compile(r'"shapes"\s*:\s*\['), "boxes and polygons of Labelme"),
    (".json", re.compile(r'"(?:regions|objects|annotations|bbox)"\s*:'), "boxes or regions"),
    (".xml", re.compile(r"<object>|<annotation[ >]"), "boxes as of Pascal VOC"),
    (".txt", _YOLO, "boxes as of YOLO"),
)
_WHOLE = (
    (".xml", re.compile(r"<annotations>.*<image ", re.DOTALL), "annotations of CVAT"),
    (".json", re.compile(r'"region_attributes"\s*:'), "regions of the VGG Image Annotator"),
    (".json", re.compile(r'"annotations"\s*:\s*\[\s*\{.*"result"\s*:', re.DOTALL), "results of Label Studio"),
)
_REMEDY = "folders of classes, or a CSV file with the columns image and label, give each image its class"
_MAX_LABEL = 100  # characters of a text that may be the class of its image


def describe_annotations(files: Files, images: Sequence[str]) -> str:
    """Returns a remark on annotations that are not read as classes; empty if there are none.

    Args:
        files: The tree.
        images: Paths of the images.
    """
    index = index_images(images)
    of_images: dict[str, list[tuple[str, int]]] = {}
    other = ""
    for row, path in enumerate(files.names):
        stem, _, suffix = path.rpartition("/")[2].rpartition(".")
        if suffix.lower() not in ("json", "xml", "txt", "yaml", "yml") or not 0 < files.sizes[row] <= MAX_BYTES:
            continue
        if stem in index:
            of_images.setdefault(f".{suffix.lower()}", []).append((path, row))
        elif other:  # the first one is named
            continue
        elif what := _match(decode(files.read(row)[:_BEGINNING]), f".{suffix.lower()}", _WHOLE):
            other = f" ({path} has {what}, which are not read: {_REMEDY})"
        elif suffix.lower() in ("yaml", "yml"):
            other = f" ({path} is not read: {_REMEDY})"
    for suffix, paths in of_images.items():
        first, row = min(paths)
        text = decode(files.read(row)[:_BEGINNING])
        shown = f"{first} and {len(paths) - 1:,} more" if len(paths) > 1 else first
        if what := _match(text, suffix, _FORMS):
            return f" ({shown} have {what}, which are for detection: {_REMEDY})"
        if suffix == ".txt" and len(text.splitlines()) == 1 and len(text) <= _MAX_LABEL:
            return f" ({shown} may have the class of an image each, and are not read: {_REMEDY})"
    return other


def _match(text: str, suffix: str, forms: Sequence[tuple[str, re.Pattern[str], str]]) -> str:
    """Returns what a text has by the first form that it matches; empty for none."""
    for ending, pattern, what in forms:
        if suffix == ending and (pattern.fullmatch(text) if pattern is _YOLO else pattern.search(text)):
            return what
    return ""
