"""Foreign shards in the real object store that are read in place: the loader's batches, resume and damage."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import webdataset
from made_archives import data_settings, photo

from conf.schema import Augment
from infra import store
from infra.errors import DataError, NotFoundError
from models.data.loading.loader import Batch, Loader
from models.data.shards import manifest as manifests
from models.data.shards import writer
from models.data.shards.layout import ShardLayout
from models.data.shards.manifest import Manifest, shard_uri

pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # webdataset's writer leaves its file open
]
SIDE, BATCH, SLICES = 8, 16, 4


@pytest.fixture
def foreign(object_store: str, tmp_path: Path) -> Iterator[str]:
    """Five tars of 30 samples each, of four classes, as webdataset writes them."""
    root = store.join(object_store, "theirs")
    with webdataset.ShardWriter(str(tmp_path / "part-%06d.tar"), maxcount=30, verbose=0) as shards:
        for number in range(150):
            sample = {"jpg": photo(number), "cls": number % 4, "npy": bytes(number)}
            shards.write({"__key__": f"{number:06d}", **sample})
    for path in sorted(tmp_path.glob("*.tar")):
        store.upload(path, store.join(root, path.name))
    yield root
    store.delete_prefix(root)


def plan(foreign: str, object_store: str) -> ShardLayout:
    data = dataclasses.replace(data_settings("webdataset"), path=foreign, shards="in_place", minival_share=0.2)
    return writer.plan(data, store.join(object_store, "in-place"))


def write(layout: ShardLayout) -> Manifest:
    for numbers in writer.groups(layout, 2):
        writer.write_group(layout, numbers)
    sha256, _ = writer.write_manifest(layout)
    return manifests.load_verified(layout.manifest_uri, sha256)


def loader(manifest: Manifest, layout: ShardLayout, split: str, cache: Path) -> Loader:
    return Loader(manifest, layout.manifest_uri, split, SIDE, Augment(), cache, 2)


def train(reader: Loader, epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> list[Batch]:
    return list(reader.train_batches(3, epoch, start, BATCH, SLICES, rank, world))


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) > 0 and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and (a.ids == b.ids).all()
        for a, b in zip(first, second, strict=True)
    )


def test_batches_are_those_of_copied_shards_in_order_once_and_after_a_resume(
    foreign: str, object_store: str, tmp_path: Path
) -> None:
    layout = plan(foreign, object_store)
    before = store.list_entries(foreign)
    manifest = write(layout)
    assert {one.address for one in manifest.shards} == {entry.uri for entry in before}
    stored = {uri.removeprefix(f"{layout.root}/") for uri in store.list_uris(layout.root)}
    assert stored == {"manifest.json", "samples.npy", *(f"index/{name}.json" for name in layout.names)}
    copied = dataclasses.replace(layout, addresses=(), root=store.join(object_store, "in-place/data/copied"))
    copy = write(copied)
    assert manifest.table.tolist() != copy.table.tolist()  # other places in other tars
    for split in manifests.SPLITS:
        here = loader(manifest, layout, split, tmp_path / "here")
        there = loader(copy, copied, split, tmp_path / "there")
        assert equal(list(here.eval_batches(10, 0, 1)), list(there.eval_batches(10, 0, 1)))
        if split == "train":
            for epoch in (0, 1):
                batches = train(here, epoch)
                assert equal(batches, train(there, epoch))
            ids = torch.cat([torch.from_numpy(batch.ids) for batch in batches]).tolist()
            assert len(set(ids)) == len(ids) == len(batches) * BATCH
            assert equal(batches[3:], train(here, 1, start=3))
            halves = zip(train(here, 1, rank=0, world=2), train(here, 1, rank=1, world=2), strict=True)
            assert [sorted([*a.ids, *b.ids]) for a, b in halves] == [sorted(batch.ids) for batch in batches]
        here.close()
        there.close()
    assert store.list_entries(foreign) == before


def test_a_foreign_tar_that_is_damaged_after_indexing_ends_the_job_before_a_sample_of_it_is_used(
    foreign: str, object_store: str, tmp_path: Path
) -> None:
    layout = plan(foreign, object_store)
    manifest = write(layout)
    shard = next(one for one in manifest.shards if one.split == "train")
    uri = shard_uri(layout.root, shard)
    data = bytearray(store.read(uri))
    data[-3000] ^= 1
    store.write(uri, bytes(data))
    reader = loader(manifest, layout, "train", tmp_path / "cache")
    with pytest.raises(DataError, match=f"{uri} does not match its manifest after 3 fetches: BLAKE3") as caught:
        train(reader, 0)
    reader.close()
    assert "restore it, or shard again if it was written anew" in str(caught.value)
    assert str(caught.value).endswith(f"data.leave_out=[{shard.name}]")
    kept = manifests.exclude_shards(manifest, [shard.name])
    reader = loader(kept, layout, "train+minival", tmp_path / "cache")
    assert sum(len(batch.ids) for batch in reader.eval_batches(10, 0, 1)) == kept.samples("train+minival")
    reader.close()
    store.delete(uri)
    reader = loader(manifest, layout, "train", tmp_path / "other")
    with pytest.raises(NotFoundError, match=f"no object at {uri}"):
        train(reader, 0)
    reader.close()
