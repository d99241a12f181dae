"""What a source is, whatever it is opened from; its index in the store; the sets in packages and in folders."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import REAL_DATA, ROOT
from made_archives import asked, packed, photo, written
from PIL import Image

from infra import store
from infra.errors import ConfigError, DataError, NotFoundError
from models.data.sources import catalog
from models.data.sources.catalog import TRAIN, VAL, Source, load, open_source, save
from models.data.sources.reader import Reader

REAL = REAL_DATA
real_images = pytest.mark.skipif(not REAL.is_dir(), reason="no real images: ../shared/data is absent")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


def as_rows(source: Source) -> list[tuple[bytes, str, int, bytes]]:
    return [
        (name, source.classes[label], int(part), source.read(index))
        for index, (name, label, part) in enumerate(
            zip(source.names.tolist(), source.labels.tolist(), source.split.tolist(), strict=True)
        )
    ]


TREE = {
    f"{part}/{one}/{i}.jpg": photo(len(part) + 10 * i) for part in ("train", "val") for one in "ab" for i in range(3)
}


def test_a_tree_with_its_own_val_keeps_it(tmp_path: Path) -> None:
    source = open_source(asked("folder", written(tmp_path, TREE)))
    assert source.own_val
    assert source.classes == ("a", "b")
    expected = [
        (name.encode(), name.split("/")[1], TRAIN if name[0] == "t" else VAL, TREE[name]) for name in sorted(TREE)
    ]
    assert as_rows(source) == expected


def test_a_tree_without_val_is_all_train(tmp_path: Path) -> None:
    files = {name.removeprefix("train/"): data for name, data in TREE.items() if name.startswith("train/")}
    source = open_source(asked("folder", written(tmp_path, {**files, "b/readme.txt": b"", "b/x/deep.jpg": b""})))
    assert not source.own_val
    assert set(source.split.tolist()) == {TRAIN}
    assert source.names.tolist() == sorted(name.encode() for name in files)


def test_a_class_without_images_is_still_a_class(tmp_path: Path) -> None:
    (written(tmp_path, {"b/1.png": photo(1, "PNG")}) / "a").mkdir()
    source = open_source(asked("folder", tmp_path))
    assert source.classes == ("a", "b")
    assert source.labels.tolist() == [1]


@pytest.mark.parametrize("name", ["set.tar", "set.tgz", "set.tar.xz"])
def test_an_archive_of_a_tree_is_the_tree(name: str, tmp_path: Path) -> None:
    tree = open_source(asked("folder", written(tmp_path / "tree", TREE)))
    archive = packed(tmp_path / name, {f"set/{name}": data for name, data in TREE.items()})
    source = open_source(asked("folder", archive))
    assert as_rows(source) == as_rows(tree)
    assert source.digest == tree.digest


@real_images
def test_the_real_flowers_have_their_own_test_part() -> None:
    source = open_source(asked("folder", REAL / "transfer" / "flowers17-12x80.tar"))
    assert (len(source.classes), source.own_val, np.bincount(source.split).tolist()) == (12, True, [720, 0, 240])
    assert Image.open(io.BytesIO(source.read(0))).size == (224, 224)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "train/a/0.jpg").write_bytes(b"longer than it was" * 100),
        lambda root: (root / "train/a/0.jpg").rename(root / "train/a/9.jpg"),
        lambda root: (root / "train/a/0.jpg").rename(root / "train/b/9.jpg"),
        lambda root: (root / "train/a/0.jpg").rename(root / "val/a/9.jpg"),
        lambda root: (root / "train/c").mkdir(),
    ],
)
def test_another_listing_has_another_digest(change: Callable[[Path], Any], tmp_path: Path) -> None:
    before = open_source(asked("folder", written(tmp_path, TREE))).digest
    change(tmp_path)
    assert open_source(asked("folder", tmp_path)).digest != before


@pytest.mark.parametrize(("name", "count", "shape"), [("mnist5k", 5000, (28, 28)), ("digits", 1797, (8, 8))])
def test_the_sets_in_packages_are_whole(name: str, count: int, shape: tuple[int, int]) -> None:
    source = open_source(asked(name))
    assert (len(source.labels), len(source.classes), source.own_val) == (count, 10, False)
    assert len(set(source.names.tolist())) == count
    assert set(source.sizes.tolist()) == {0}
    assert Image.open(io.BytesIO(source.read(count - 1))).size == shape


def same(one: Source, other: Source) -> bool:
    arrays = all(
        np.array_equal(getattr(one, key), getattr(other, key)) for key in ("labels", "split", "names", "sizes")
    )
    rest = ("classes", "own_val", "digest", "missing", "crop_bottom")
    return arrays and all(getattr(one, key) == getattr(other, key) for key in rest)


@pytest.mark.parametrize("kind", ["tree", "tgz", "package"])
def test_a_saved_index_opens_the_same_source(kind: str, tmp_path: Path) -> None:
    data = {
        "tree": lambda: asked("folder", written(tmp_path / "tree", TREE)),
        "tgz": lambda: asked("folder", packed(tmp_path / "set.tgz", TREE)),
        "package": lambda: asked("digits"),
    }[kind]()
    source, uri = open_source(data), f"file://{tmp_path}/index.npz"
    save(source, uri)
    again = load(data, uri)
    assert same(again, source)
    assert [again.read(i) for i in range(12)] == [source.read(i) for i in range(12)]


def test_a_saved_index_reads_from_the_path_of_the_machine_it_is_on(tmp_path: Path) -> None:
    source = open_source(asked("folder", packed(tmp_path / "here" / "set.tar", TREE)))
    save(source, f"file://{tmp_path}/index.npz")
    (tmp_path / "here").rename(tmp_path / "there")
    again = load(asked("folder", tmp_path / "there" / "set.tar"), f"file://{tmp_path}/index.npz")
    assert again.read(3) == as_rows(open_source(asked("folder", tmp_path / "there" / "set.tar")))[3][3]


def test_an_index_of_another_archive_is_refused(tmp_path: Path) -> None:
    data = asked("folder", packed(tmp_path / "set.tar", TREE))
    save(open_source(data), f"file://{tmp_path}/index.npz")
    packed(tmp_path / "set.tar", {**TREE, "train/a/new.jpg": bytes(20_000)})
    with pytest.raises(DataError, match=r"set.tar has \d+ bytes, the index .* was made of \d+"):
        load(data, f"file://{tmp_path}/index.npz")


def test_an_index_of_other_digits_is_refused(tmp_path: Path) -> None:
    save(open_source(asked("mnist5k")), f"file://{tmp_path}/index.npz")
    with pytest.raises(DataError, match="digits is here"):
        load(asked("digits"), f"file://{tmp_path}/index.npz")


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
    data, path = asked("folder", written(tmp_path / "tree", TREE)), tmp_path / "index.npz"
    save(open_source(data), f"file://{path}")
    with np.load(path) as arrays:
        forged = damage(dict(arrays))
    np.savez(path, **forged)
    with pytest.raises(DataError, match="is no index of a source"):
        load(data, f"file://{path}")


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"nothing", zipfile_with_garbage()):
        store.write(f"file://{tmp_path}/index.npz", content)
        with pytest.raises(DataError, match="is no index of a source"):
            load(asked("digits"), f"file://{tmp_path}/index.npz")
    with pytest.raises(NotFoundError):
        load(asked("digits"), f"file://{tmp_path}/nowhere.npz")


def zipfile_with_garbage() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer:
        writer.writestr("about.npy", b"garbage")
    return buffer.getvalue()


@pytest.mark.parametrize("source", [name for name in catalog._OPENERS if name not in ("mnist5k", "digits")])
def test_a_set_without_a_path_says_what_to_do(source: str) -> None:
    with pytest.raises(ConfigError, match=rf"data={source} needs data.path="):
        open_source(asked(source))


@pytest.mark.parametrize("source", [name for name in catalog._OPENERS if name not in ("mnist5k", "digits")])
def test_a_folder_with_nothing_of_the_set_is_a_person_s_mistake(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        open_source(asked(source, written(tmp_path / "set", {"x/readme.txt": b"."}), allow_partial=True))


def test_an_unknown_source_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"'cifar' is unknown; choices: mnist5k, digits, folder, imagenet, .*food101"):
        open_source(asked("cifar"))


def test_every_source_has_a_configuration_of_its_name() -> None:
    found = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")}
    assert found == set(catalog._OPENERS)


def test_reading_from_a_tree_needs_no_index_of_it(tmp_path: Path) -> None:
    source = open_source(asked("folder", written(tmp_path, TREE)))
    assert isinstance(source.read, Reader)
    (tmp_path / "train/a/0.jpg").unlink()
    with pytest.raises(DataError, match=r"train/a/0.jpg cannot be read"):
        source.read(0)
