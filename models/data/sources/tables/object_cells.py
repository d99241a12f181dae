"""Columns of a table whose cells are objects in JSON, as ``region_attributes`` of VIA: one column for each attribute.

Source of the layout: ``via_export_csv.csv`` of the VGG Image Annotator (robots.ox.ac.uk/~vgg/software/via), whose
attributes are texts, or objects with true for the boxes that are checked.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.data.sources.tables.reading import Table, cell_of


def divide_objects(table: Table) -> Table:
    """Returns a table with the attributes of its columns of objects as columns, and these columns empty."""
    rows = [row for some in table.rows.values() for row in some]
    numbers = [
        number
        for number in range(len(table.header))
        if not _is_object(cell_of(table.header, number)) and _are_objects(rows, number)
    ]
    if not numbers:
        return table
    read = {id(row): _read_cells(row, numbers) for row in rows}
    names = list(dict.fromkeys(name for cells in read.values() for name in cells))
    width = len(table.header)

    def widen(row: list[str]) -> list[str]:
        kept = ["" if number in numbers else cell_of(row, number) for number in range(width)]
        return [*kept, *(read[id(row)].get(name, "") for name in names)]

    divided = {image: [widen(row) for row in some] for image, some in table.rows.items()}
    return replace(table, header=[*table.header, *names], rows=divided)


def _are_objects(rows: list[list[str]], number: int) -> bool:
    """Whether all texts of a column are objects; of most columns the first one tells."""
    cells = (cell for row in rows if (cell := cell_of(row, number)))
    first = next(cells, "")
    return _is_object(first) and all(map(_is_object, cells))


def _is_object(cell: str) -> bool:
    return cell.startswith("{") and cell.endswith("}")


def _read_cells(row: list[str], numbers: list[int]) -> Mapping[str, str]:
    """Returns the attributes of a row that are texts, or of which one box is checked."""
    attributes: dict[str, str] = {}
    for number in numbers:
        for name, value in _read_object(cell_of(row, number)).items():
            checked = (
                [key for key, is_checked in value.items() if is_checked is True] if isinstance(value, dict) else []
            )
            if isinstance(value, str) and value:
                attributes[str(name)] = value
            elif checked:
                attributes[str(name)] = ", ".join(map(str, checked))
    return attributes


def _read_object(cell: str) -> Mapping[Any, Any]:
    """Returns an object as JSON or Python writes it; an empty one if it is damaged."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return value
    return {}
