"""Texts beside images, which may be tables or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from made_archives import data_settings, photo, write_tree
from matrix import with_slow_rest

from infra.errors import ConfigError
from models.data.sources.catalog import open_source
from models.data.sources.tables import reading, unread_labels


@pytest.mark.parametrize(
    "name", with_slow_rest(["test/{}.txt", "test/caption of {}.txt", "train/caption of {}.txt"], plain=2)
)
@pytest.mark.parametrize("classes", ["ab", ("", "")])
def test_many_texts_beside_the_images_are_read_with_few_indexes_of_these(
    name: str, classes: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As boxes or captions of the images of a test: an index for each would take hours for a large set."""
    indexed = []

    def index_images(images: Iterable[str]) -> dict[str, str | None]:
        indexed.append(1)
        return make_index(images)

    make_index = reading.index_images
    monkeypatch.setattr(reading, "index_images", index_images)
    monkeypatch.setattr(unread_labels, "index_images", index_images)
    files = {f"train/{one}/{i}{number}.jpg": photo(i) for number, one in enumerate(classes) for i in range(30)}
    files |= {f"test/{i}.jpg": photo(i) for i in range(60)}
    files |= {name.format(i): b"a dog\n" * 30 for i in range(60)}
    files["train.csv"] = b"name,label\n" + b"".join(b"%d%d.jpg,%d\n" % (i, n, n) for i in range(30) for n in range(2))
    root = write_tree(tmp_path / "set", files)
    assert len(open_source(data_settings("folder", root, allow_partial=True)).labels) == 60
    assert len(indexed) < 30


@pytest.mark.parametrize("line", ["{} {}\n", "{}.JPEG {}\n", "test/{}  {}\n", "{}\t{}\n", "{}\n"])
def test_a_list_of_the_images_of_a_test_has_no_labels(line: str, tmp_path: Path) -> None:
    """As ``ImageSets/CLS-LOC/test.txt`` of ImageNet as Kaggle has it, with running numbers."""
    names = [f"ILSVRC2012_test_{i:08d}" for i in range(1, 31)]
    files = {f"Data/train/{label}/{label}_{i}.JPEG": photo(i) for label in ("n01", "n02") for i in range(6)}
    files |= {f"Data/test/{name}.JPEG": photo(i) for i, name in enumerate(names)}
    rows = [line.format(name, number) for number, name in enumerate(names, 1)]
    files["ImageSets/test.txt"] = "".join(rows).encode()
    root = write_tree(tmp_path / "set", files)
    source = open_source(data_settings("folder", root))
    assert (source.classes, len(source.labels)) == (("n01", "n02"), 12)
    assert source.unused[0].startswith("30 images without a label in test/ (no file has their classes")
    (root / "ImageSets/test.txt").write_text("".join(f"{row.split()[0]} {i % 2}\n" for i, row in enumerate(rows)))
    with pytest.raises(ConfigError, match=r"has these classes\) \(data.train_folders=\[train\] trains without them"):
        open_source(data_settings("folder", root))
