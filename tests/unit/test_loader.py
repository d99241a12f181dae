"""Batches: what is in them depends on data, seed and epoch, and on nothing of the machine."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from conf.schema import Augment, Data
from infra.errors import DataError
from models.data import manifest as manifests
from models.data import shards
from models.data.decode import eval_image
from models.data.loader import Batch, Loader
from models.data.manifest import Manifest

SIDE = 12
TRAIN, VAL = 38, 13


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, str, Path]:
    """51 made-up PNGs in shards of 7; manifest, its uri, cache folder."""
    root = tmp_path_factory.mktemp("loader")
    rng = np.random.default_rng(0)
    for i in range(TRAIN + 4 + VAL):
        path = root / "images" / f"class{i % 3}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(path)
    data = Data(name="made", source="folder", path=str(root / "images"), samples_per_shard=7,
                val_share=VAL / (TRAIN + 4 + VAL), minival_share=4 / (TRAIN + 4))  # fmt: skip
    storage = f"file://{root}/store"
    layout = shards.plan(data, storage)
    shards.write_group(data, storage, range(len(layout.names)))
    shards.write_manifest(layout, data.name)
    return manifests.load(layout.manifest_uri)[1], layout.manifest_uri, root / "cache"


def loader(data_set: tuple[Manifest, str, Path], split: str, threads: int = 1) -> Loader:
    manifest, uri, cache = data_set
    return Loader(manifest, uri, split, SIDE, Augment(), cache, threads)


def train_batches(
    data_set: tuple[Manifest, str, Path], *, threads: int = 1, rank: int = 0, world_size: int = 1,
    seed: int = 0, epoch: int = 0, start: int = 0,
) -> list[Batch]:  # fmt: skip
    reader = loader(data_set, "train", threads)
    batches = list(reader.train_batches(seed, epoch, start, 8, rank, world_size))
    reader.close()
    return batches


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(first, second, strict=True)
    )


def test_an_epoch_has_whole_batches_of_bytes_and_labels(data_set: tuple[Manifest, str, Path]) -> None:
    batches = train_batches(data_set)
    assert len(batches) == TRAIN // 8
    for batch in batches:
        assert (batch.images.dtype, tuple(batch.images.shape)) == (torch.uint8, (8, SIDE, SIDE, 3))
        assert (batch.labels.dtype, tuple(batch.labels.shape)) == (torch.int64, (8,))


@pytest.mark.parametrize("threads", [2, 5])
def test_batches_are_the_same_with_any_number_of_threads(data_set: tuple[Manifest, str, Path], threads: int) -> None:
    assert same(train_batches(data_set, threads=threads), train_batches(data_set))


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_batches_side_by_side_are_the_one_rank_s_batch(
    data_set: tuple[Manifest, str, Path], world_size: int
) -> None:
    whole = train_batches(data_set)
    parts = [train_batches(data_set, rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [
        Batch(torch.cat([b.images for b in step]), torch.cat([b.labels for b in step]))
        for step in zip(*parts, strict=True)
    ]
    assert same(joined, whole)


def test_a_resumed_epoch_gives_the_missing_batches(data_set: tuple[Manifest, str, Path]) -> None:
    assert same(train_batches(data_set, start=2), train_batches(data_set)[2:])


def test_another_epoch_and_another_seed_give_other_batches(data_set: tuple[Manifest, str, Path]) -> None:
    first = train_batches(data_set)
    assert not same(first, train_batches(data_set, epoch=1))
    assert not same(first, train_batches(data_set, seed=1))


def test_a_sample_is_cropped_differently_in_each_epoch(data_set: tuple[Manifest, str, Path]) -> None:
    reader = loader(data_set, "train")
    ids = np.array([5])
    first, again, later = (reader._assemble(ids, key).images for key in ((0, 0), (0, 0), (0, 1)))
    reader.close()
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_each_sample_has_random_numbers_of_its_own(
    data_set: tuple[Manifest, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []

    def image(data: bytes, side: int, augment: Augment, rng: random.Random) -> NDArray[np.uint8]:
        drawn.append(rng.random())
        return np.zeros((side, side, 3), np.uint8)

    monkeypatch.setattr("models.data.decode.train_image", image)
    train_batches(data_set)
    assert len(set(drawn)) == len(drawn) == TRAIN // 8 * 8


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_reads_the_whole_split_in_small_last_batches(
    data_set: tuple[Manifest, str, Path], world_size: int
) -> None:
    manifest, uri, _ = data_set
    sizes, read = [], []
    for rank in range(world_size):
        reader = loader(data_set, "val", threads=2)
        batches = list(reader.eval_batches(4, rank, world_size))
        reader.close()
        sizes.append([len(batch.labels) for batch in batches])
        read += [(batch.images[i].numpy().tobytes(), int(batch.labels[i]))
                 for batch in batches for i in range(len(batch.labels))]  # fmt: skip
    assert sizes == {1: [[4, 4, 4, 1]], 2: [[4, 3], [4, 2]], 3: [[4, 1], [4], [4]]}[world_size]
    expected = []
    for shard in manifest.split("val"):
        tar = Path(uri.removeprefix("file://")).with_name(shard.name).read_bytes()
        for offset, size, label in zip(shard.offsets, shard.sizes, shard.labels, strict=True):
            expected.append((eval_image(tar[offset : offset + size], SIDE, Augment()).tobytes(), label))
    assert sorted(read) == sorted(expected)


def test_an_image_that_does_not_decode_is_told_with_its_shard(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    for i in range(12):
        path = tmp_path / "images" / "only" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue() if i else b"no image")
    data = Data(name="bad", source="folder", path=str(tmp_path / "images"), minival_share=0.2)
    layout = shards.plan(data, f"file://{tmp_path}/store")
    shards.write_group(data, f"file://{tmp_path}/store", range(len(layout.names)))
    shards.write_manifest(layout, data.name)
    split = next(s for s, members in zip(layout.splits, layout.members, strict=True) if 0 in members)
    made = (manifests.load(layout.manifest_uri)[1], layout.manifest_uri, tmp_path / "cache")
    reader = loader(made, split)
    with pytest.raises(DataError, match=rf"{split}-00000-of-00001\.tar.*image of 8 bytes does not decode"):
        list(reader.eval_batches(4, 0, 1))
    reader.close()
