"""The table of data sets; sources of packages and folders."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import REAL_DATA, ROOT
from made_archives import data_settings, photo, small_tree, write_archive, write_tree
from matrix import with_slow_rest
from PIL import Image

from conf import compose
from conf.schema import Data
from infra.errors import ConfigError, DataError
from models.data.sources import catalog
from models.data.sources.catalog import open_source
from models.data.sources.files.reader import Reader
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source
from models.paper import TABLE6_BY_SOURCE

REAL = REAL_DATA
PLACES = ("data", "data@transfer.data")
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


TREE = small_tree()


def test_an_existing_val_folder_is_kept(tmp_path: Path) -> None:
    source = open_source(data_settings("folder", write_tree(tmp_path, TREE)))
    assert source.own_val
    assert source.classes == ("a", "b")
    expected = [
        (name.encode(), name.split("/")[1], TRAIN if name[0] == "t" else VAL, TREE[name]) for name in sorted(TREE)
    ]
    assert as_rows(source) == expected


def test_a_tree_without_val_is_all_train(tmp_path: Path) -> None:
    files = {name.removeprefix("train/"): data for name, data in TREE.items() if name.startswith("train/")}
    source = open_source(data_settings("folder", write_tree(tmp_path, {**files, "b/readme.txt": b""})))
    assert not source.own_val
    assert set(source.split.tolist()) == {TRAIN}
    assert source.names.tolist() == sorted(name.encode() for name in files)


def test_a_class_without_images_is_still_a_class(tmp_path: Path) -> None:
    (write_tree(tmp_path, {"b/1.png": photo(1, "PNG")}) / "a").mkdir()
    source = open_source(data_settings("folder", tmp_path))
    assert source.classes == ("a", "b")
    assert source.labels.tolist() == [1]


@pytest.mark.parametrize("name", ["set.tar", "set.tgz", "set.tar.xz"])
def test_an_archive_of_a_tree_is_the_tree(name: str, tmp_path: Path) -> None:
    tree = open_source(data_settings("folder", write_tree(tmp_path / "tree", TREE)))
    archive = write_archive(tmp_path / name, {f"set/{name}": data for name, data in TREE.items()})
    source = open_source(data_settings("folder", archive))
    assert as_rows(source) == as_rows(tree)
    assert source.digest == tree.digest


@real_images
def test_the_real_flowers_have_an_official_test_part() -> None:
    source = open_source(data_settings("folder", REAL / "transfer" / "flowers17-12x80.tar"))
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
    before = open_source(data_settings("folder", write_tree(tmp_path, TREE))).digest
    change(tmp_path)
    assert open_source(data_settings("folder", tmp_path)).digest != before


@pytest.mark.parametrize("path", ["s3://", "s3:///folder"])
def test_an_address_without_a_bucket_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=f"data.path '{path}' names no bucket"):
        open_source(Data(name="x", source="folder", path=path))


def test_a_folder_of_other_images_is_told_the_setting_that_reads_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contains nothing of the data set; .*; data=folder reads images of y"):
        open_source(data_settings("cifar10", tmp_path))
    write_tree(tmp_path, {f"{label}/{i}.jpg": photo(i) for label in ("ant", "bee") for i in range(3)})
    said = r"has ant, bee, and neither cifar-10-python.tar.gz nor folders train/CLASS/IMAGE; data=folder reads images"
    with pytest.raises(ConfigError, match=said):
        open_source(data_settings("cifar10", tmp_path))


def test_the_archives_of_imagenet_s_classes_are_to_be_extracted(tmp_path: Path) -> None:
    tree = {f"val/n{label:08}/{i}.JPEG": photo(i) for label in range(2) for i in range(3)}
    write_tree(tmp_path, tree | {f"train/n{label:08}.tar": b"\0" * 1024 for label in range(2)})
    said = r"train/ has 2 archives and no images: extract each, as n00000000\.tar, into a folder of its name$"
    with pytest.raises(ConfigError, match=said):
        open_source(data_settings("imagenet", tmp_path))
    with pytest.raises(ConfigError, match=r"\.tar is not a folder: give the one with ILSVRC2012_img_train\.tar and "):
        open_source(data_settings("imagenet", tmp_path / "train" / "n00000000.tar"))


def test_a_path_that_a_packaged_set_does_not_read_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(data_settings("digits", tmp_path))
    assert f"digits is part of a Python package: data.path {tmp_path} is not read" in caplog.text
    assert len(source.labels) == 1797


@pytest.mark.parametrize("key", ["val_path", "class_file"])
def test_settings_of_another_source_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=rf"^data\.{key} is for data=webdataset, not for folder$"):
        data_settings("folder", Path("x"), **{key: "y"})


@pytest.mark.parametrize(("name", "count", "shape"), [("mnist5k", 5000, (28, 28)), ("digits", 1797, (8, 8))])
def test_packaged_sets_are_complete(name: str, count: int, shape: tuple[int, int]) -> None:
    source, data_set = open_source(data_settings(name)), catalog.DATA_SETS[name]
    assert (len(source.labels), len(source.classes), source.own_val) == (count, 10, False)
    assert (data_set.images, data_set.classes) == ({TRAIN: count}, 10)
    assert len(set(source.names.tolist())) == count
    assert set(source.sizes.tolist()) == {0}
    assert Image.open(io.BytesIO(source.read(count - 1))).size == shape


@pytest.mark.parametrize("source", sorted(set(catalog.DATA_SETS) - catalog.packaged()))
def test_a_missing_path_is_refused_with_the_expected_files(source: str) -> None:
    with pytest.raises(ConfigError, match=rf"data={source} needs data.path="):
        open_source(data_settings(source))


@pytest.mark.parametrize("source", sorted(set(catalog.DATA_SETS) - catalog.packaged()))
def test_a_folder_without_files_of_the_set_is_a_config_error(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        open_source(data_settings(source, write_tree(tmp_path / "set", {"x/readme.txt": b"."}), allow_partial=True))


def test_an_unknown_source_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"'cifar' is unknown; choices: mnist5k, digits, folder, web.*food101"):
        open_source(data_settings("cifar"))


def test_every_source_has_a_configuration_of_its_name() -> None:
    assert set(compose.options("data")) == set(catalog.DATA_SETS)


@pytest.mark.parametrize("source", with_slow_rest(catalog.DATA_SETS, plain=3))
def test_the_configuration_of_a_source_has_its_name_and_metric(source: str) -> None:
    names = sorted(catalog.DATA_SETS)
    place = names.index(source)
    # Two sets in one composition, which takes a tenth of a second and is kept.
    config = compose.compose([f"{key}={name}" for key, name in zip(PLACES, names[place - place % 2 :], strict=False)])
    data = (config.data, config.transfer.data)[place % 2]
    assert (data.name, data.source, data.metric) == (source, source, catalog.DATA_SETS[source].metric)


@pytest.mark.parametrize("source", TABLE6_BY_SOURCE)
def test_the_counts_of_table_6_are_those_of_the_catalog(source: str) -> None:
    printed, data_set = TABLE6_BY_SOURCE[source], catalog.DATA_SETS[source]
    train = data_set.images[TRAIN] + data_set.images.get(MINIVAL, 0)
    assert (printed.train, printed.misprinted or printed.test) == (train, data_set.images[VAL])
    assert printed.validation == data_set.images.get(MINIVAL, 0)
    assert (printed.classes, printed.metric) == (data_set.classes, data_set.metric)


@pytest.mark.parametrize("source", catalog.DATA_SETS)
def test_every_source_is_documented(source: str) -> None:
    assert f"`{source}`" in (ROOT / "docs" / "data.md").read_text()


def test_a_removed_image_of_a_tree_is_reported_when_it_is_read(tmp_path: Path) -> None:
    source = open_source(data_settings("folder", write_tree(tmp_path, TREE)))
    assert isinstance(source.read, Reader)
    (tmp_path / "train/a/0.jpg").unlink()
    with pytest.raises(DataError, match=r"train/a/0.jpg cannot be read"):
        source.read(0)
