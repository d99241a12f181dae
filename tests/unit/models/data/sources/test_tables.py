"""Texts beside images, which may be tables or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from made_archives import data_settings, photo, write_tree

from models.data.sources import csv_labels, tables
from models.data.sources.catalog import open_source


@pytest.mark.parametrize("name", ["test/{}.txt", "test/caption of {}.txt", "train/caption of {}.txt"])
@pytest.mark.parametrize("classes", ["ab", ("", "")])
def test_many_texts_beside_the_images_are_read_with_few_indexes_of_these(
    name: str, classes: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As boxes or captions of the images of a test: an index for each would take hours for a large set."""
    indexed = []

    def index_images(images: Iterable[str]) -> dict[str, str | None]:
        indexed.append(1)
        return make_index(images)

    make_index = tables.index_images
    monkeypatch.setattr(tables, "index_images", index_images)
    monkeypatch.setattr(csv_labels, "index_images", index_images)
    files = {f"train/{one}/{i}{number}.jpg": photo(i) for number, one in enumerate(classes) for i in range(30)}
    files |= {f"test/{i}.jpg": photo(i) for i in range(60)}
    files |= {name.format(i): b"a dog\n" * 30 for i in range(60)}
    files["train.csv"] = b"name,label\n" + b"".join(b"%d%d.jpg,%d\n" % (i, n, n) for i in range(30) for n in range(2))
    root = write_tree(tmp_path / "set", files)
    assert len(open_source(data_settings("folder", root, allow_partial=True)).labels) == 60
    assert len(indexed) < 30
