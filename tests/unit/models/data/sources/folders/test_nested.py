"""What lies below the folders that would be the classes, in large trees."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from models.data.sources.folders import layouts, nested, packed

NAMES = [f"class_{i % 10}/{'train' if i % 3 else 'test'}/{i}.jpg" for i in range(20_000)]
FLAT = [f"class_{i % 10}/{i}.jpg" for i in range(20_000)]
ROWS = {name: row for row, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    "look",
    [
        lambda: nested.read_splits_below(FLAT, ""),
        lambda: nested.select_classes(nested.one_of_each_folder(FLAT), [f"class_{i}" for i in range(10)], ""),
        lambda: nested.group_by_class(nested.one_of_each_folder(NAMES), [f"class_{i}/" for i in range(10)]),
        lambda: layouts.find_masks(NAMES, "", are_classes=True),
        lambda: layouts.are_beginnings(name for name in NAMES),
        lambda: packed.find_unread_versions(ROWS, frozenset()),
    ],
)
def test_nothing_is_kept_for_each_image(look: Callable[[], object]) -> None:
    """Of a set such as ImageNet, a list for each image needs hundreds of megabytes and a third of the time."""
    tracemalloc.start()
    try:
        look()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(NAMES)
