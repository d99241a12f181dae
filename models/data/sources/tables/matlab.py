"""Reads MATLAB files: those of the devkits of ImageNet, Cars and Flowers, and lists of a user's own images.

Reading one executes no code. Sources of the layouts of lists: ``lists/train_list.mat`` of Stanford Dogs (a column of
names and one of labels), ``cars_annos.mat`` of Stanford Cars (a record for each image), ``imagelabels.mat`` and
``setid.mat`` of Oxford Flowers-102 and ``datasplits.mat`` of Flowers-17 (a label for each number of an image, and
numbers of the images of each split).
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import DataError
from models.data.sources.files.archive import Files

MATLAB = ".mat"
_MAX_VALUES = 10_000_000  # of a variable that is read as a column; a larger one has pixels
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, NotImplementedError, OSError, struct.error, zlib.error)
_SPLITS = {"trn": "train", "train": "train", "val": "val", "valid": "val", "tst": "test", "test": "test"}
_OF_SPLIT = re.compile(rf"({'|'.join(_SPLITS)})(?:id|ids|idx|ind|set)?_?(1?)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d{1,9})\.\w{1,5}", re.ASCII)


def load(files: Files, row: int, key: str) -> Any:
    """Returns the variable ``key`` of a ``.mat`` file, without dimensions of size one.

    Raises:
        DataError: The file is not a MATLAB file, is damaged, or has no such variable.
    """
    # Imported here because it takes half a second and few data sets need it. scipy has no type annotations.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(io.BytesIO(files.read(row)), squeeze_me=True, variable_names=[key])[key]
    except (MatReadError, *_DAMAGED) as error:
        raise DataError(f"{files.root}: {files.names[row]} cannot be read as MATLAB data: {error!r}") from error


def read_matlab(data: bytes, images: Iterable[str]) -> list[list[str]]:
    """Returns the rows of a file below the names of its variables; none if it is damaged, of version 7.3, or no list.

    Args:
        data: Content of the file.
        images: Paths of the images, whose numbers count where the file has numbers and no names.
    """
    columns = _read_columns(data)
    length = max(map(len, columns.values()), default=0)
    longest = {name: column for name, column in columns.items() if len(column) == length}
    if not all(text.isdecimal() for column in longest.values() for text in column):
        return [list(longest), *map(list, zip(*longest.values(), strict=True))]
    by_number = _number_images(images) if columns else {}
    labels = {name: column for name, column in columns.items() if len(column) == len(by_number)}
    if labels:
        rows = zip(*labels.values(), strict=True)
        return [["file_name", *labels], *([by_number[number], *row] for number, row in enumerate(rows, 1))]
    parts = {_SPLITS[match[1].lower()]: name for name in columns if (match := _OF_SPLIT.fullmatch(name))}
    divided = [(int(text), kind) for kind, name in parts.items() for text in columns[name]]
    return [["file_name", "split"], *([by_number[number], kind] for number, kind in divided if number in by_number)]


def _read_columns(data: bytes) -> dict[str, list[str]]:
    """Returns the variables, and fields of records, that are vectors of texts or of whole numbers."""
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        names = [
            name
            for name, shape, kind in whosmat(io.BytesIO(data))
            if math.prod(shape) <= _MAX_VALUES and (kind == "char" or math.prod(shape) == max(shape, default=0))
        ]
        content = loadmat(io.BytesIO(data), squeeze_me=True, variable_names=names) if names else {}
    except (MatReadError, *_DAMAGED):
        return {}
    columns: dict[str, list[str]] = {}
    for name in names:
        value = np.atleast_1d(content.get(name, ()))
        fields: Mapping[str, Any] = {name: value}
        if value.dtype.names:
            fields = {field: value[field] for field in value.dtype.names}
        for field, column in fields.items():
            one = column[0] if value.dtype.names and len(column) == 1 else column
            if len(texts := _as_texts(np.atleast_1d(one))) > 1:
                columns.setdefault(field, texts)
    return columns


def _as_texts(column: NDArray[Any]) -> list[str]:
    """Returns the texts or whole numbers of a vector; none if it has anything else."""
    if column.ndim != 1:
        return []
    texts = []
    for value in column.tolist():
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if not is_whole and not isinstance(value, str):
            return []
        texts.append(value.strip() if isinstance(value, str) else str(int(value)))
    return texts


def _number_images(images: Iterable[str]) -> dict[int, str]:
    """Returns the images by the number at the end of their names; empty unless they have those from 1, each once."""
    numbers: dict[int, str] = {}
    count = 0
    for image in images:
        match = _NUMBER.search(image.rpartition("/")[2])
        count += 1
        if match is not None:
            numbers[int(match[1])] = image
    is_whole = len(numbers) == count and sorted(numbers) == list(range(1, count + 1))
    return numbers if is_whole else {}
