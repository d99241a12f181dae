"""Images whose bytes another class has too: counted, named, refused if they are many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_archives import data_settings, photo, write_archive, write_tree

from infra.errors import DataError
from models.data.shards import writer
from models.data.sources import index


def images(equal: int) -> dict[str, bytes]:
    """60 images of two classes, of which the last ``equal`` of the one are the last of the other."""
    files = {f"cat/{i:02d}.jpg": photo(i) for i in range(30)}
    return files | {f"dog/{i:02d}.jpg": photo(i if i >= 30 - equal else 100 + i) for i in range(30)}


def plan(path: Path, **changes: object) -> writer.ShardLayout:
    data = data_settings("folder", path, val_share=0.2, minival_share=0.2, samples_per_shard=100, **changes)
    return writer.plan(data, f"file://{path.parent}/store")


@pytest.mark.parametrize("pack", [write_tree, write_archive])
def test_a_few_are_named_in_the_log_and_in_the_manifest(
    pack: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = (
        "8 images have the bytes of an image of another class: cat/26.jpg (cat) and dog/26.jpg (dog); "
        "cat/27.jpg (cat) and dog/27.jpg (dog); cat/28.jpg (cat) and dog/28.jpg (dog); and 1 more"
    )
    layout = plan(pack(tmp_path / "set.tar", images(4)))
    assert layout.source.duplicates == (line,)
    assert caplog.messages.count(f"folder: {line}") == 1
    writer.PLANS.share(layout)
    assert index.load(layout.data, f"{layout.root}/source.npz").duplicates == (line,)
    writer.write_group(layout, range(len(layout.names)))
    assert writer.write_manifest(layout)[1].duplicates == (line,)


def test_many_are_refused_before_anything_is_written_unless_they_are_accepted(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "set", images(6))
    with pytest.raises(DataError, match=r"12 images have the bytes .* Of 60 images these are too many"):
        plan(tree)
    assert not (tmp_path / "store").exists()
    assert plan(tree, allow_partial=True).source.duplicates


def test_images_of_val_that_are_in_train_are_counted(tmp_path: Path) -> None:
    train = {f"train/{name}": data for name, data in images(0).items()}
    val = {
        f"val/{label}/{i}.jpg": photo(500 + i + 50 * (label == "dog")) for label in ("cat", "dog") for i in range(20)
    }
    val |= {f"val/cat/copy{i}.jpg": photo(i) for i in range(15)}
    val |= {f"{part}/cat/broken{i}.jpg": b"404 Not Found" for part in ("train", "val") for i in range(2)}
    source = plan(write_tree(tmp_path / "set", train | val)).source
    assert source.duplicates == ("15 of 57 images of val are in train too, first val/cat/copy0.jpg",)


def test_equal_images_of_one_class_and_equal_files_that_are_no_images_are_no_conflict(tmp_path: Path) -> None:
    files = images(0) | {f"cat/copy{i}.jpg": photo(0) for i in range(20)}
    files |= {f"{label}/broken{i}.jpg": b"404 Not Found" for label in ("cat", "dog") for i in range(20)}
    assert plan(write_tree(tmp_path / "set", files)).source.duplicates == ()
