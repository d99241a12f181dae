"""Labels of images from CSV files beside them, as in Kaggle's data sets.

Source of the layout: ``LOC_val_solution.csv`` of kaggle.com/c/imagenet-object-localization-challenge, with the columns
ImageId and PredictionString, whose first word is the class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence

from infra.errors import ConfigError
from models.data.sources.archive import Files

_MAX_BYTES = 256 * 2**20
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_labels(files: Files, images: Sequence[str], classes: Collection[str]) -> dict[str, str]:
    """Reads the classes of images from every CSV or TSV file in the tree, except sample submissions.

    One column holds names of the images, with or without folders and suffix; another holds classes, or texts whose
    first word is a class.

    Args:
        files: The tree.
        images: Paths of the images without a class folder.
        classes: Names that count as classes.

    Returns:
        The class of each image that a file states.

    Raises:
        ConfigError: Two files state different classes for one image.
    """
    stems = {_stem(name): name for name in images}
    labels: dict[str, str] = {}
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2].lower()
        separator = _SEPARATORS.get(name[-4:])
        if separator is None or ("sample" in name and "submission" in name) or files.sizes[row] > _MAX_BYTES:
            continue
        text = files.read(row).decode("utf-8-sig", "replace")
        for stem, label in _read_table(text, separator, stems.keys(), classes).items():
            if labels.setdefault(stems[stem], label) != label:
                raise ConfigError(
                    f"{files.root}: {stems[stem]} is {labels[stems[stem]]} in one file and {label} in {path}; "
                    "keep one file with labels"
                )
    return labels


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _read_table(text: str, separator: str, stems: Collection[str], classes: Collection[str]) -> dict[str, str]:
    """Returns the class by image from the first pair of columns that hold images and classes in most of their rows."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except csv.Error:
        return {}
    for key in range(min(map(len, rows), default=0)):
        keyed = {stem: row for row in rows if (stem := _match(row[key].strip(), stems))}
        for column in range(min(map(len, keyed.values()), default=0)):
            values = {stem: _class_of(row[column].strip(), classes) for stem, row in keyed.items()}
            labels = {stem: label for stem, label in values.items() if label is not None}
            if column != key and 2 * len(labels) > len(values):
                return labels
    return {}


def _match(text: str, stems: Collection[str]) -> str | None:
    base = text.rpartition("/")[2]
    return next((one for one in (base, base.rpartition(".")[0]) if one in stems), None)


def _class_of(text: str, classes: Collection[str]) -> str | None:
    first = text.partition(" ")[0]
    return text if text in classes else first if first in classes else None
