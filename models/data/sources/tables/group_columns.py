"""Columns of tables that say which images belong together, as those of a patient, which splits should not divide."""

from __future__ import annotations

import re
from collections.abc import Collection

from models.data.sources.tables.reading import Table, cell_of

_WHOLES = frozenset(
    ("animal", "case", "donor", "exam", "individual", "lesion", "participant", "patient", "person", "subject")
)
_NUMBERS = frozenset(("id", "ids", "no", "nr", "number", "code", "name"))


def describe_groups(table: Table, key: int, label: int | None, images: Collection[str]) -> str:
    """Returns a remark on a column by which several images are of one patient, lesion or animal; empty for none.

    As ``lesion_id`` of HAM10000, which has 7,470 lesions on 10,015 images.

    Args:
        table: A table that has the classes of the images.
        key: Its column with the names of the images.
        label: Its column with the classes; None if each class has one.
        images: Those that have a class.
    """
    for number in range(len(table.header)):
        words = set(re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cell_of(table.header, number)).lower()))
        if number == key or not words & _WHOLES or not words <= _WHOLES | _NUMBERS:
            continue
        stated = [texts for image, texts in table.column(number).items() if image in images and texts != {""}]
        values = set().union(*stated)
        if 1 < len(values) < len(stated):
            what = min(words & _WHOLES)
            together = f"CLASS/{what.upper()}/IMAGE, data.group_level=2 keeps"
            if label is not None:
                together = f"{what.upper()}/IMAGE, data.label_field={table.name(label)} data.group_level=1 keep"
            return (
                f"{table.path} has {len(values):,} different {table.name(number)} of {len(stated):,} images, and drawn "
                f"splits may divide those of one {what}: in folders {together} them together"
            )
    return ""
