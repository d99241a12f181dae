"""Images with equal bytes in several classes, of which a label is wrong, or in train and in a held-out split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from conf import schema
from conf.text import escaped, logger
from infra.errors import DataError
from models.data.sources.files.image_format import CONVERTIBLE, DECODED, HEAD_BYTES, identify_format
from models.data.sources.listing import MINIVAL, SPLITS, TRAIN, VAL, Source
from models.data.sources.unused import LOST_FEW, LOST_SHARE

log = logger()
_NAMED = 3  # maximum of pairs in a message


def find_duplicates(data: schema.Data, source: Source, content: NDArray[np.uint64]) -> Source:
    """Adds a line for each kind of such images to a source, and logs it. Files that are no images are not counted.

    Args:
        data: Data settings.
        source: The source.
        content: ``[N]``, digests of its images.

    Raises:
        DataError: Images in several classes are more than 1 % (and more than 10), without ``data.allow_partial``.
    """
    lines = [line for line in (_compare_classes(data, source, content), *_compare_splits(source, content)) if line]
    for line in lines:
        log.warning("%s: %s", data.name, line)
    return replace(source, duplicates=tuple(lines))


def _compare_classes(data: schema.Data, source: Source, content: NDArray[np.uint64]) -> str:
    groups = [rows for rows in _find_groups(source.labels, content) if _is_image(source, int(rows[0]))]
    if not groups:
        return ""
    groups.sort(key=lambda rows: min(source.names[rows].tolist()))
    pairs = [" and ".join(_name_classes(source, rows)[:2]) for rows in groups[:_NAMED]]
    count = sum(map(len, groups))
    line = f"{count:,} images have the bytes of an image of another class: {'; '.join(pairs)}"
    line += f"; and {len(groups) - _NAMED:,} more" * (len(groups) > _NAMED)
    if count > max(LOST_FEW, LOST_SHARE * len(content)) and not data.allow_partial:
        raise DataError(
            f"{data.name} at {data.path}: {line}. Of {len(content):,} images these are too many: remove those with the "
            "wrong label, or set data.allow_partial=true to use all of them"
        )
    return line


def _compare_splits(source: Source, content: NDArray[np.uint64]) -> list[str]:
    """Returns a line for each held-out split of the source that has images of train."""
    lines = []
    for part in (MINIVAL, VAL):
        held_out = np.flatnonzero(source.split == part)
        inside = held_out[np.isin(content[held_out], content[source.split == TRAIN])]
        rows = [row for row in inside.tolist() if _is_image(source, row)]
        if rows:
            first = escaped(min(source.names[rows].tolist()).decode("utf-8", "backslashreplace"))
            lines.append(f"{len(rows):,} of {len(held_out):,} images of {SPLITS[part]} are in train too, first {first}")
    return lines


def _find_groups(labels: NDArray[np.int32], content: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
    """Returns the rows of equal images, one array per image that has several labels."""
    order = np.lexsort((labels, content))
    equal, sorted_labels = content[order], labels[order]
    starts = np.flatnonzero(np.concatenate([[True], equal[1:] != equal[:-1]]))
    ends = np.append(starts[1:], len(equal))
    several = sorted_labels[starts] != sorted_labels[ends - 1]
    return [order[start:end] for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True)]


def _is_image(source: Source, row: int) -> bool:
    """Returns whether a file begins as an image does; failed downloads have equal bytes in any class."""
    return identify_format(source.read(row)[:HEAD_BYTES]) in (*DECODED, *CONVERTIBLE)


def _name_classes(source: Source, rows: NDArray[np.int64]) -> list[str]:
    """Returns the first name of each class that equal images have."""
    first: dict[int, str] = {}
    for row in sorted(rows.tolist(), key=lambda row: bytes(source.names[row])):
        name = bytes(source.names[row]).decode("utf-8", "backslashreplace")
        first.setdefault(int(source.labels[row]), f"{escaped(name)} ({escaped(source.classes[source.labels[row]])})")
    return list(first.values())
