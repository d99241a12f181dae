"""The index of a source in the object store."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_archives import data_settings, small_tree, write_archive, write_tree

from infra import store
from infra.errors import DataError, NotFoundError
from models.data.sources.catalog import open_source
from models.data.sources.index import load, save
from models.data.sources.listing import Source, with_content

TREE = small_tree()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


def same(one: Source, other: Source) -> bool:
    arrays = all(
        np.array_equal(getattr(one, key), getattr(other, key)) for key in ("labels", "split", "names", "sizes")
    )
    rest = ("classes", "own_val", "digest", "missing", "crop_bottom")
    return arrays and all(getattr(one, key) == getattr(other, key) for key in rest)


@pytest.mark.parametrize("kind", ["tree", "tgz", "package"])
def test_a_saved_index_opens_the_same_source(kind: str, tmp_path: Path) -> None:
    data = {
        "tree": lambda: data_settings("folder", write_tree(tmp_path / "tree", TREE)),
        "tgz": lambda: data_settings("folder", write_archive(tmp_path / "set.tgz", TREE)),
        "package": lambda: data_settings("digits"),
    }[kind]()
    source, uri = open_source(data), f"file://{tmp_path}/index.npz"
    save(source, uri)
    again = load(data, uri)
    assert same(again, source)
    assert [again.read(i) for i in range(12)] == [source.read(i) for i in range(12)]


def test_a_saved_index_keeps_the_digests_of_the_images(tmp_path: Path) -> None:
    data, uri = data_settings("folder", write_tree(tmp_path / "tree", TREE)), f"file://{tmp_path}/index.npz"
    source = with_content(open_source(data))
    save(source, uri)
    again = load(data, uri)
    assert same(again, source)
    assert again.content is not None
    assert source.content is not None
    assert again.content.tolist() == source.content.tolist()
    packed = with_content(open_source(data_settings("folder", write_archive(tmp_path / "set.tar", TREE))))
    assert packed.digest == source.digest  # wherever the images are


def test_a_saved_index_reads_from_the_path_configured_on_this_machine(tmp_path: Path) -> None:
    source = open_source(data_settings("folder", write_archive(tmp_path / "here" / "set.tar", TREE)))
    save(source, f"file://{tmp_path}/index.npz")
    (tmp_path / "here").rename(tmp_path / "there")
    again = load(data_settings("folder", tmp_path / "there" / "set.tar"), f"file://{tmp_path}/index.npz")
    assert again.read(3) == open_source(data_settings("folder", tmp_path / "there" / "set.tar")).read(3)


def test_an_index_of_another_archive_is_refused(tmp_path: Path) -> None:
    data = data_settings("folder", write_archive(tmp_path / "set.tar", TREE))
    save(open_source(data), f"file://{tmp_path}/index.npz")
    write_archive(tmp_path / "set.tar", {**TREE, "train/a/new.jpg": bytes(20_000)})
    with pytest.raises(DataError, match=r"set.tar has \d+ bytes, the index .* states \d+"):
        load(data, f"file://{tmp_path}/index.npz")


def test_an_index_of_other_digits_is_refused(tmp_path: Path) -> None:
    save(open_source(data_settings("mnist5k")), f"file://{tmp_path}/index.npz")
    with pytest.raises(DataError, match="digits has digest"):
        load(data_settings("digits"), f"file://{tmp_path}/index.npz")


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays: arrays | {"paths": np.array([b"../../etc/passwd"] * 12)},
        lambda arrays: arrays | {"paths": np.array([b"/etc/passwd"] * 12)},
        lambda arrays: arrays | {"paths": np.array([], "S1")},
        lambda arrays: arrays | {"container": np.full(12, 3, np.int32)},
        lambda arrays: arrays | {"offsets": np.full(12, -1, np.int64)},
        lambda arrays: arrays | {"labels": arrays["labels"][:5]},
        lambda arrays: arrays | {"labels": arrays["labels"].astype(np.float64)},
        lambda arrays: arrays | {"about": np.frombuffer(b"{}", np.uint8)},
        lambda arrays: {key: value for key, value in arrays.items() if key != "split"},
        lambda arrays: arrays | {"names": np.array([{}] * 12, object)},
    ],
)
def test_a_damaged_or_forged_index_is_refused(damage: Callable[[Any], Any], tmp_path: Path) -> None:
    data, path = data_settings("folder", write_tree(tmp_path / "tree", TREE)), tmp_path / "index.npz"
    save(open_source(data), f"file://{path}")
    with np.load(path) as arrays:
        forged = damage(dict(arrays))
    np.savez(path, **forged)
    with pytest.raises(DataError, match="is not an index of a source"):
        load(data, f"file://{path}")


def test_an_object_that_is_not_an_npz_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"nothing", zipfile_with_garbage()):
        store.write(f"file://{tmp_path}/index.npz", content)
        with pytest.raises(DataError, match="is not an index of a source"):
            load(data_settings("digits"), f"file://{tmp_path}/index.npz")
    with pytest.raises(NotFoundError):
        load(data_settings("digits"), f"file://{tmp_path}/nowhere.npz")


def zipfile_with_garbage() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer:
        writer.writestr("about.npy", b"garbage")
    return buffer.getvalue()
