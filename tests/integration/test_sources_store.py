"""Archives read where they lie in a real object store."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from conf.schema import Data
from infra import store
from infra.errors import ConfigError, DataError
from models.data import archive, container
from models.data.sources import load, open_source, save

pytestmark = pytest.mark.services
REAL = Path(__file__).parents[2].parent / "shared" / "data"
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


def asked(path: str | Path, source: str = "imagenet") -> Data:
    return Data(name=source, source=source, path=str(path), allow_partial=True)


def test_imagenet_in_the_store_is_imagenet_on_disk(imagenet: str, tmp_path: Path) -> None:
    there, here = open_source(asked(imagenet)), open_source(asked(REAL / "imagenet"))
    assert there.digest == here.digest
    assert np.array_equal(there.names, here.names)
    assert [there.read(i) for i in range(0, 750, 75)] == [here.read(i) for i in range(0, 750, 75)]
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.tar")) < 2**20  # the devkit alone


def test_an_index_saved_in_the_store_serves_a_machine_with_its_own_copy(imagenet: str) -> None:
    there, uri = open_source(asked(imagenet)), store.join(imagenet, "index.npz")
    save(there, uri)
    for path in (imagenet, REAL / "imagenet"):
        again = load(asked(path), uri)
        assert again.digest == there.digest
        assert again.read(400) == there.read(400)


def test_headers_are_read_in_few_requests(imagenet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[int] = []
    real = store.read_range

    def counted(uri: str, start: int, length: int) -> bytes:
        asked_for.append(length)
        return real(uri, start, length)

    monkeypatch.setattr(store, "read_range", counted)
    found = archive.archive(imagenet, "ILSVRC2012_img_val.tar")
    assert len(found.names) == 250
    assert len(asked_for) == -(-store.size(f"{imagenet}/ILSVRC2012_img_val.tar") // container.SCAN_BYTES)


@real_images
def test_a_compressed_archive_in_the_store_is_inflated_here(object_store: str, tmp_path: Path) -> None:
    root = store.join(object_store, "official", "food")
    data = gzip.compress((REAL / "transfer" / "food-101-10x40.tar").read_bytes(), 1)
    store.write(store.join(root, "food-101.tar.gz"), data)
    there = open_source(asked(root, "food101"))
    here = open_source(asked(REAL / "transfer" / "food-101-10x40.tar", "food101"))
    assert there.digest == here.digest
    assert there.read(11) == here.read(11)


def test_an_archive_that_shrank_in_the_store_is_said(imagenet: str) -> None:
    source = open_source(asked(imagenet))
    whole = store.read(f"{imagenet}/ILSVRC2012_img_val.tar")
    store.write(f"{imagenet}/ILSVRC2012_img_val.tar", whole[:100_000])
    try:
        with pytest.raises(DataError):
            source.read(749)
        with pytest.raises(DataError, match="cut off"):
            open_source(asked(imagenet))
    finally:
        store.write(f"{imagenet}/ILSVRC2012_img_val.tar", whole)


def test_an_extracted_tree_in_the_store_is_refused_with_the_reason(object_store: str) -> None:
    root = store.join(object_store, "official", "tree")
    store.write(store.join(root, "train/n01440764/1.JPEG"), b"x")
    with pytest.raises(ConfigError, match="extracted trees are read from local disk only"):
        open_source(asked(root))
