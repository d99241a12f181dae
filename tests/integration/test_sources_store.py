"""Archives read in place from a real object store."""

import gzip
import time
from pathlib import Path

import numpy as np
import pytest
import webdataset
from checkout import REAL_DATA
from made_archives import photo
from PIL import Image

from conf.schema import Data
from infra import store
from infra.errors import ConfigError, DataError
from infra.store import client as s3
from models.data.shards import layout
from models.data.sources.catalog import open_source
from models.data.sources.files import archive, container, walk
from models.data.sources.index import load, save

pytestmark = pytest.mark.services
REAL = REAL_DATA
real_images = pytest.mark.skipif(not REAL.is_dir(), reason="no real images: ../shared/data is absent")


@pytest.fixture(scope="module")
def imagenet(object_store: str) -> str:
    if not REAL.is_dir():
        pytest.skip("no real images: ../shared/data is absent")
    root = store.join(object_store, "official", "imagenet")
    store.ensure_root(root)
    for path in (REAL / "imagenet").glob("ILSVRC2012_*"):
        store.upload(path, store.join(root, path.name))
    return root


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


def data_settings(path: str | Path, source: str = "imagenet") -> Data:
    return Data(name=source, source=source, path=str(path), allow_partial=True)


def test_imagenet_in_the_store_is_imagenet_on_disk(imagenet: str, tmp_path: Path) -> None:
    there, here = open_source(data_settings(imagenet)), open_source(data_settings(REAL / "imagenet"))
    assert there.digest == here.digest
    assert np.array_equal(there.names, here.names)
    assert [there.read(i) for i in range(0, 750, 75)] == [here.read(i) for i in range(0, 750, 75)]
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.tar")) < 2**20  # only the devkit


@pytest.mark.slow
def test_an_index_saved_in_the_store_serves_a_machine_with_its_own_copy(imagenet: str) -> None:
    there, uri = open_source(data_settings(imagenet)), store.join(imagenet, "index.npz")
    save(there, uri)
    for path in (imagenet, REAL / "imagenet"):
        again = load(data_settings(path), uri)
        assert again.digest == there.digest
        assert again.read(400) == there.read(400)


def test_headers_are_read_in_few_requests(imagenet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[int] = []
    real = store.read_range

    def counted(uri: str, start: int, length: int) -> bytes:
        asked_for.append(length)
        return real(uri, start, length)

    monkeypatch.setattr(store, "read_range", counted)
    files = archive.archive(imagenet, "ILSVRC2012_img_val.tar")
    assert len(files.names) == 250
    assert asked_for[0] == 512  # the first bytes say what kind of archive it is
    assert len(asked_for) - 1 == -(-store.size(f"{imagenet}/ILSVRC2012_img_val.tar") // container.SCAN_BYTES)


@real_images
def test_a_compressed_archive_in_the_store_is_decompressed_locally(object_store: str, tmp_path: Path) -> None:
    root = store.join(object_store, "official", "food")
    data = gzip.compress((REAL / "transfer" / "food-101-10x40.tar").read_bytes(), 1)
    store.write(store.join(root, "food-101.tar.gz"), data)
    there = open_source(data_settings(root, "food101"))
    here = open_source(data_settings(REAL / "transfer" / "food-101-10x40.tar", "food101"))
    assert there.digest == here.digest
    assert there.read(11) == here.read(11)


def test_a_replaced_archive_of_the_same_size_is_another_one(object_store: str) -> None:
    uri = store.join(object_store, "replaced", "images.tar")
    stamps = []
    for content in (b"a" * 512, b"b" * 512):
        store.write(uri, content)
        stamps.append(container.Container(uri).stamp)
        time.sleep(1.1)  # the store tells the time of a change in whole seconds
    assert stamps[0] != stamps[1]


@pytest.mark.slow
def test_an_archive_that_shrank_in_the_store_is_said(imagenet: str) -> None:
    source = open_source(data_settings(imagenet))
    whole = store.read(f"{imagenet}/ILSVRC2012_img_val.tar")
    store.write(f"{imagenet}/ILSVRC2012_img_val.tar", whole[:100_000])
    try:
        with pytest.raises(DataError):
            source.read(749)
        with pytest.raises(DataError, match="truncated"):
            open_source(data_settings(imagenet))
    finally:
        store.write(f"{imagenet}/ILSVRC2012_img_val.tar", whole)


def tree(root: Path, classes: tuple[str, ...], object_store: str) -> str:
    """Writes a small tree to ``root`` and to the store, there beside other objects; returns its uri in the store."""
    for top in ("train", "val"):
        for number in range(8):
            name = f"{classes[number % len(classes)]}_{top}{number}.JPEG"
            path = root / top / classes[number % len(classes)] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (30 * number, 0, 0)).save(path, "JPEG")
    there = store.join(object_store, "trees", root.name)
    store.ensure_root(there)
    for path in sorted(file for file in root.rglob("*") if file.is_file()):
        store.upload(path, store.join(there, str(path.relative_to(root))))
    bucket, _, prefix = there.removeprefix("s3://").partition("/")
    with s3.connect(there) as (client, _):  # objects that consoles and rsync create
        client.put_object(Bucket=bucket, Key=f"{prefix}/train/")
        client.put_object(Bucket=bucket, Key=f"{prefix}/train/.hidden/x.jpg", Body=b"x")
        client.put_object(Bucket=bucket, Key=f"{prefix}-beside/train/other/x.jpg", Body=b"x")
    return there


@pytest.mark.parametrize("source", ["folder", "imagenet", "imagenette"])
def test_an_extracted_tree_in_the_store_is_the_tree_on_disk(source: str, object_store: str, tmp_path: Path) -> None:
    root = tree(tmp_path / source, ("n01440764", "n01443537"), object_store)
    there, here = open_source(data_settings(root, source)), open_source(data_settings(tmp_path / source, source))
    assert there.digest == here.digest
    assert len(there.names) == 16
    assert [there.read(i) for i in range(16)] == [here.read(i) for i in range(16)]
    save(there, uri := store.join(root, "index.npz"))
    assert load(data_settings(tmp_path / source, source), uri).digest == there.digest


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's writer leaves its file open
def test_webdataset_shards_in_the_store_are_those_on_disk(object_store: str, tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=10, verbose=0) as shards:
        for number in range(25):
            shards.write({"__key__": f"{number:06d}", "jpg": photo(number), "cls": number % 3})
    root = store.join(object_store, "foreign")
    store.ensure_root(root)
    for path in sorted(tmp_path.glob("*.tar")):
        store.upload(path, store.join(root, path.name))
    here = open_source(data_settings(tmp_path, "webdataset"))
    for address in (root, f"{root}/train-{{000000..000002}}.tar", f"{root}/train-*.tar"):
        there = open_source(data_settings(address, "webdataset"))
        assert there.digest == here.digest
        assert [there.read(i) for i in range(25)] == [here.read(i) for i in range(25)]
    save(there, uri := store.join(root, "index.npz"))
    assert load(data_settings(tmp_path, "webdataset"), uri).read(7) == photo(7)


def test_an_image_that_left_the_store_is_named(object_store: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "gone", ("a", "b"), object_store)
    source = open_source(data_settings(root, "folder"))
    store.delete(f"{root}/train/a/a_train0.JPEG")
    with pytest.raises(DataError, match=r"a_train0\.JPEG"):
        source.read(0)


@pytest.mark.parametrize("source", ["folder", "imagenet", "food101"])
def test_an_empty_place_in_the_store_is_said(source: str, object_store: str) -> None:
    with pytest.raises(ConfigError, match=r"s3://.*/nothing/here"):
        open_source(data_settings(store.join(object_store, "nothing/here"), source))


def test_of_a_folder_in_the_store_only_new_and_changed_objects_are_read(
    object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, storage = store.join(object_store, "growing"), store.join(object_store, "storage")
    store.ensure_root(root)
    for number in range(30):
        store.write(f"{root}/{('ant', 'bee')[number % 2]}/{number}.jpg", photo(number))
    monkeypatch.setattr(walk, "RECENT_S", 0.0)
    reads: list[str] = []
    real = store.read_range

    def counted(uri: str, start: int, length: int) -> bytes:
        reads.append(uri)
        return real(uri, start, length)

    monkeypatch.setattr(store, "read_range", counted)

    def plan() -> set[str]:
        reads.clear()
        layout.plan(Data(name="growing", source="folder", path=root), storage)
        return {uri.removeprefix(f"{root}/") for uri in reads}

    assert len(plan()) == 30
    assert plan() == set()
    store.write(f"{root}/bee/31.jpg", photo(31))
    image = bytearray(store.read(f"{root}/ant/0.jpg"))
    image[-1] ^= 1
    store.write(f"{root}/ant/0.jpg", bytes(image))
    assert plan() == {"bee/31.jpg", "ant/0.jpg"}
    assert plan() == set()
