"""Files beside the images that may have their labels and are not read, which messages name."""

from __future__ import annotations

from collections.abc import Sequence

from models.data.sources.files.archive import Files
from models.data.sources.splits import split_of
from models.data.sources.tables.image_names import index_images, names_one
from models.data.sources.tables.json_tables import JSON_LINES
from models.data.sources.tables.matlab import MATLAB
from models.data.sources.tables.reading import (
    MAX_BYTES,
    SUFFIXES,
    TABLES,
    decode,
    has_one_for_each,
    is_of_predictions,
    may_label,
    read_tables,
)

_OTHER_TABLES = (".json", ".xlsx", ".xls", ".ods", ".parquet", ".feather", ".pkl", ".mat", ".h5", ".npy", ".npz")
_PACKED = (".gz", ".zip", ".bz2", ".xz", ".7z")
_LABEL_BYTES = 2  # of a label, at least
_SHOWN = 60  # characters of a line in a message


def describe_others(files: Files, images: Sequence[str]) -> str:
    """Returns a remark on the first file that may have the labels and is not used; empty if there is none."""
    stems = index_images(images)
    read = {table.path for table, _ in read_tables(files, images, (MATLAB,))}
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2].lower()
        if path.rpartition("/")[2].rpartition(".")[0] in stems or path in read or files.sizes[row] > MAX_BYTES:
            continue
        if name.endswith((".csv", ".tsv", *JSON_LINES)) and is_of_predictions(path.rpartition("/")[2]):
            if "sample" not in name:
                return f" ({path} is not read: rename it unless it has predictions, as its name says)"
            continue
        if name.endswith((".csv", ".tsv", *JSON_LINES)):
            lines = [line for line in decode(files.read(row)).splitlines() if line.strip()]
            shown = ascii(lines[min(1, len(lines) - 1)][:_SHOWN]) if lines else "empty"
            return f" ({path} names none of the images; its second line is {shown})"
        packed = next((suffix for suffix in _PACKED if name.endswith(suffix)), "")
        if name.removesuffix(packed).endswith((*SUFFIXES, *_OTHER_TABLES) if packed else _OTHER_TABLES):
            return f" ({path} is not read: save its names and classes as a CSV file)"
    return ""


def find_unread_labels(files: Files, images: Sequence[str]) -> str:
    """Returns the first file that is no such table and may have the labels of held-out images; empty for none.

    That is a text or JSON with as many labels as there are images, a text named after a test split that does not list
    the images, JSON that names one of them, or a file of another format that is large enough, unless it is named after
    another split.
    """
    index = index_images(images)
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2].lower()
        kinds = {split_of(part) for part in path.split("/")}
        is_of_image = path.rpartition("/")[2].rpartition(".")[0] in index  # boxes or a caption of one image
        if is_of_image or "train" in kinds or files.sizes[row] < len(images):
            continue
        if files.sizes[row] > MAX_BYTES:
            if name.endswith(TABLES):
                return path
            continue
        if name.endswith((*SUFFIXES, *JSON_LINES)):
            is_about = not is_of_predictions(name) and may_label(
                decode(files.read(row)), index, len(images), is_named="test" in kinds, is_of_other="val" in kinds
            )
        else:
            packed = next((suffix for suffix in _PACKED if name.endswith(suffix)), "")
            is_about = name.removesuffix(packed).endswith((*SUFFIXES, *_OTHER_TABLES) if packed else _OTHER_TABLES)
            is_about = is_about and files.sizes[row] >= _LABEL_BYTES * len(images)
            if is_about and "test" not in kinds and name.endswith(".json"):
                text = decode(files.read(row))
                is_about = names_one(text, images) or has_one_for_each(text, len(images))
        if is_about:
            return path
    return ""
