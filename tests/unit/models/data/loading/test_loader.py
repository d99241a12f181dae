"""Batches: their content depends only on data, seed and epoch, not on the machine."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_set import MadeSet, write_set
from PIL import Image

from conf.data_set import EvalTransform
from conf.schema import Augment
from infra import store
from infra.errors import DataError
from models.data.loading import crops, decode, loader
from models.data.loading.auto_augment import draws, sample_ops
from models.data.loading.device import to_device
from models.data.loading.loader import Batch, Loader
from models.data.loading.order import epoch_order, rank_ids, run_samples
from models.data.loading.randomness import uniforms

SIDE = 12
TRAIN, VAL = [7, 9, 8, 7, 7, 5], [7, 6]
BATCH, LOGICAL = 8, 4
Open = Callable[..., Loader]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSet:
    return write_set(f"file://{tmp_path_factory.mktemp('loader')}/store", {"train": TRAIN, "minival": [3], "val": VAL})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(made: MadeSet, cache: Path) -> Callable[..., list[Batch]]:
    """Reads all batches of an epoch with a new loader."""

    def batches(
        *,
        threads: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        augment: Augment | None = None,
        side: int = SIDE,
    ) -> list[Batch]:
        reader = Loader(made.manifest, made.uri, "train", side, augment or Augment(), cache, threads)
        try:
            return list(reader.train_batches(seed, epoch, start, BATCH, LOGICAL, rank, world_size))
        finally:
            reader.close()

    return batches


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(first, second, strict=True)
    )


def side_by_side(parts: list[list[Batch]]) -> list[Batch]:
    return [
        Batch(
            torch.cat([b.images for b in step]),
            torch.cat([b.labels for b in step]),
            np.concatenate([b.ids for b in step]),
        )
        for step in zip(*parts, strict=True)
    ]


def test_an_epoch_has_full_batches_of_bytes_and_labels(train: Callable[..., list[Batch]]) -> None:
    batches = train()
    assert len(batches) == sum(TRAIN) // BATCH
    for batch in batches:
        assert (batch.images.dtype, tuple(batch.images.shape)) == (torch.uint8, (BATCH, SIDE, SIDE, 3))
        assert (batch.labels.dtype, tuple(batch.labels.shape)) == (torch.int64, (BATCH,))


@pytest.mark.parametrize("policy", ["none", "v0"])
def test_the_pixels_are_those_of_the_image_with_its_own_box_flip_and_operations(
    made: MadeSet, train: Callable[..., list[Batch]], policy: str
) -> None:
    augment = Augment(policy=policy)
    order = epoch_order(TRAIN, 3, 2, run_samples=run_samples(sum(TRAIN), BATCH, LOGICAL))
    for ids, batch in zip(rank_ids(order, BATCH, LOGICAL, 0, 1), train(seed=3, epoch=2, augment=augment), strict=True):
        rows = made.manifest.table[ids]  # the manifest lists train's shards first
        drawn = uniforms(3, 2, ids, crops.DRAWS + draws(augment))
        sizes = rows["width"].astype(np.int64), rows["height"].astype(np.int64)
        boxes, flips = crops.train_boxes(*sizes, drawn[:, : crops.DRAWS], augment, SIDE)
        expected = np.empty((BATCH, SIDE, SIDE, 3), np.uint8)
        ops = sample_ops(augment, drawn[:, crops.DRAWS :], SIDE)
        decode.fill(expected, [made.images[i] for i in ids], boxes, flips, ops)
        assert np.array_equal(batch.images.numpy(), expected)
        assert batch.labels.tolist() == rows["label"].tolist()


@pytest.mark.parametrize("threads", [2, 5])
def test_batches_are_bit_equal_with_any_number_of_threads(train: Callable[..., list[Batch]], threads: int) -> None:
    assert same(train(threads=threads), train())


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_concatenated_batches_of_the_ranks_equal_the_batch_of_one_rank(
    train: Callable[..., list[Batch]], world_size: int
) -> None:
    parts = [train(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert same(side_by_side(parts), train())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, sum(TRAIN) // BATCH), st.sampled_from([1, 2, 4]), st.integers(1, 4), st.integers(0, 3))
def test_a_resume_with_other_ranks_and_threads_yields_the_remaining_batches(
    train: Callable[..., list[Batch]], start: int, world_size: int, threads: int, epoch: int
) -> None:
    parts = [
        train(start=start, rank=rank, world_size=world_size, threads=threads, epoch=epoch) for rank in range(world_size)
    ]
    assert same(side_by_side(parts), train(epoch=epoch)[start:])


def test_another_epoch_and_another_seed_give_other_batches(train: Callable[..., list[Batch]]) -> None:
    assert not same(train(), train(epoch=1))
    assert not same(train(), train(seed=1))


def test_a_sample_is_cropped_differently_in_every_epoch(made: MadeSet, cache: Path) -> None:
    reader = Loader(made.manifest, made.uri, "train", SIDE, Augment(), cache, 1)
    ids = np.arange(20)
    first, again, later = (reader._draw(ids, ids * 0, key).boxes for key in ((0, 0), (0, 0), (0, 1)))
    reader.close()
    assert np.array_equal(first, again)
    assert (first != later).any(axis=1).mean() > 0.5


@pytest.mark.parametrize(
    ("world_size", "interpolation"), [(1, "bicubic"), (2, "bicubic"), (3, "bicubic"), (1, "bilinear")]
)
def test_evaluation_reads_the_whole_split_in_small_last_batches(
    made: MadeSet, cache: Path, world_size: int, interpolation: str
) -> None:
    sizes, images, labels = [], [], []
    for rank in range(world_size):
        augment = Augment(eval_interpolation=interpolation)
        reader = Loader(made.manifest, made.uri, "val", SIDE, augment, cache, 2)
        batches = list(reader.eval_batches(4, rank, world_size))
        reader.close()
        sizes.append([len(batch.labels) for batch in batches])
        images += [batch.images for batch in batches]
        labels += [batch.labels for batch in batches]
    assert sizes == {1: [[4, 4, 4, 1]], 2: [[4, 2], [4, 3]], 3: [[4], [4], [4, 1]]}[world_size]
    rows, blobs = made.manifest.table[-sum(VAL) :], made.images[-sum(VAL) :]
    boxes = crops.eval_boxes(rows["width"].astype(np.int64), rows["height"].astype(np.int64), SIDE, EvalTransform())
    expected = np.empty((sum(VAL), SIDE, SIDE, 3), np.uint8)
    decode.fill(expected, blobs, boxes, np.zeros(sum(VAL), np.bool_), interpolation=interpolation)
    assert np.array_equal(torch.cat(images).numpy(), expected)
    assert torch.cat(labels).tolist() == rows["label"].tolist()


def test_a_batch_does_not_change_while_later_ones_are_filled(train: Callable[..., list[Batch]]) -> None:
    kept = [(batch.images.clone(), batch) for batch in train(threads=2)]
    assert all(torch.equal(copy, batch.images) for copy, batch in kept)
    assert len({batch.images.data_ptr() for _, batch in kept}) == len(kept)


def test_few_batches_are_filled_ahead_of_the_consumer(
    made: MadeSet, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled, real = [], decode.fill
    monkeypatch.setattr(decode, "fill", lambda out, *rest, **more: (filled.append(len(out)), real(out, *rest, **more)))

    def made_after_the_first(side: int) -> float:
        filled.clear()
        reader = Loader(made.manifest, made.uri, "train", side, Augment(), cache, 2)
        batches = reader.train_batches(0, 0, 0, BATCH, LOGICAL, 0, 1)
        next(batches)
        reader.pool.shutdown(wait=True)
        batches.close()
        reader.close()
        return sum(filled) / BATCH

    assert made_after_the_first(SIDE) == loader.PREFETCH_BATCHES
    monkeypatch.setattr(loader, "PREFETCH_BYTES", 3 * BATCH * SIDE**2 * 3)
    assert made_after_the_first(SIDE) == 3
    monkeypatch.setattr(loader, "PREFETCH_BYTES", 1)
    assert made_after_the_first(SIDE) == 2  # the current one and the next


def test_no_thread_remains_when_an_epoch_is_abandoned(made: MadeSet, cache: Path) -> None:
    before = threading.active_count()
    reader = Loader(made.manifest, made.uri, "train", SIDE, Augment(), cache, 3)
    batches = reader.train_batches(0, 0, 0, BATCH, LOGICAL, 0, 1)
    next(batches)
    batches.close()
    reader.close()
    assert threading.active_count() == before


def test_the_loader_reports_what_it_read_fetched_and_waited_for(made: MadeSet, tmp_path: Path) -> None:
    reader = Loader(made.manifest, made.uri, "val", SIDE, Augment(), tmp_path, 2)
    list(reader.eval_batches(4, 0, 1))
    first = reader.stats()
    list(reader.eval_batches(4, 0, 1))
    second = reader.stats() - first
    reader.close()
    shards = [shard for shard in made.manifest.shards if shard.split == "val"]
    encoded = int(made.manifest.table["size"][-sum(VAL) :].sum())
    assert (first.images, first.bytes_read) == (second.images, second.bytes_read) == (sum(VAL), encoded)
    assert (first.bytes_fetched, second.bytes_fetched) == (sum(shard.bytes for shard in shards), 0)
    assert (first.cache_misses, first.cache_hits) == (2, 0)
    assert (second.cache_misses, second.cache_hits) == (0, 2)
    assert first.wait_s > 0
    metrics = second.metrics(seconds=2.0)
    assert metrics["data_wait"] == second.wait_s / 2
    assert metrics["decode_ms"] == 1000 * second.decode_s / sum(VAL)
    assert metrics["read_mb_per_s"] == encoded / 2e6
    assert metrics["cache_hits"] == 1.0
    assert (first - first).metrics(1.0) == {}


def test_batches_are_unchanged_on_a_cpu(train: Callable[..., list[Batch]]) -> None:
    batches = train()
    passed = list(to_device(iter(batches), torch.device("cpu")))
    assert all(a is b for a, b in itertools.zip_longest(passed, batches))


def damaged_set(folder: Path, bad: bytes) -> MadeSet:
    """Writes a data set whose third image of val is ``bad``, with matching checksums."""
    made = write_set(f"file://{folder}/store", {"train": [4], "val": [5]})
    name = made.manifest.shards[1].name
    tar = bytearray(store.read(f"file://{folder}/store/{name}"))
    row = made.manifest.table[6]
    start, end = int(row["offset"]), int(row["offset"] + row["size"])
    tar[start:end] = bad.ljust(end - start, b"\0")
    return rewritten(made, folder, bytes(tar), xxhash.xxh3_64_intdigest(tar[start:end]))


def rewritten(made: MadeSet, folder: Path, tar: bytes, checksum: int) -> MadeSet:
    shard = replace(made.manifest.shards[1], blake3=blake3(tar).hexdigest())
    store.write(f"file://{folder}/store/{shard.name}", tar)
    made.manifest.table["xxh3"][6] = checksum
    return replace(made, manifest=replace(made.manifest, shards=(made.manifest.shards[0], shard)))


def test_an_image_that_does_not_decode_is_reported_with_its_shard_and_number(tmp_path: Path) -> None:
    made = damaged_set(tmp_path, b"no image")
    reader = Loader(made.manifest, made.uri, "val", SIDE, Augment(), tmp_path / "cache", 2)
    with pytest.raises(DataError, match=r"shard val-00000-of-00001\.tar, sample 2: "):
        list(reader.eval_batches(4, 0, 1))
    assert reader.stats().cache_misses == 1  # the checksum matches, so nothing is refetched
    reader.close()


def test_an_image_damaged_on_the_local_disk_is_refetched(tmp_path: Path) -> None:
    made = write_set(f"file://{tmp_path}/store", {"train": [4], "val": [5]})

    def batches() -> tuple[list[Batch], int]:
        reader = Loader(made.manifest, made.uri, "val", SIDE, Augment(), tmp_path / "cache", 2)
        batch_list = list(reader.eval_batches(4, 0, 1))
        fetched = reader.stats().cache_misses
        reader.close()
        return batch_list, fetched

    expected, _ = batches()
    path = tmp_path / "cache" / f"{made.manifest.shards[1].blake3}.tar"
    tar, row = bytearray(path.read_bytes()), made.manifest.table[6]
    tar[int(row["offset"]) : int(row["offset"] + row["size"])] = bytes(int(row["size"]))
    path.write_bytes(tar)
    batch_list, fetched = batches()
    assert same(batch_list, expected)
    assert fetched == 1


def test_a_cache_smaller_than_an_epoch_is_reported_once_with_both_sizes_and_the_setting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = write_set(f"file://{tmp_path}/store", {"train": [4, 4]}, padding=250_000)
    for cap, lines in ((3 * 10**6, 0), (2 * 10**6 - 1, 1)):
        reader = Loader(made.manifest, made.uri, "train", SIDE, Augment(), tmp_path / str(cap), 2, cap)
        for epoch in range(2):
            list(reader.train_batches(0, epoch, 0, 4, 1, 0, 1))
        reader.close()
        warnings = [record.getMessage() for record in caplog.records if "runtime.cache_gb" in record.getMessage()]
        assert len(warnings) == lines
    needed = sum(shard.bytes for shard in made.manifest.shards)
    assert f"an epoch reads {needed / 1e9:.3g} GB of shards and the cache holds 0.002 GB" in warnings[0]


def test_images_of_different_sizes_and_formats_form_one_batch(tmp_path: Path) -> None:
    made = write_set(f"file://{tmp_path}/store", {"train": [4], "val": [5]})
    buffer = io.BytesIO()
    Image.new("L", (int(made.manifest.table["width"][6]), int(made.manifest.table["height"][6])), 77).save(
        buffer, "PNG"
    )
    grey = buffer.getvalue()
    assert len(grey) <= int(made.manifest.table["size"][6])
    mixed = damaged_set(tmp_path, grey)
    reader = Loader(mixed.manifest, mixed.uri, "val", SIDE, Augment(), tmp_path / "cache", 1)
    images = torch.cat([batch.images for batch in reader.eval_batches(4, 0, 1)])
    reader.close()
    assert images[2].unique().tolist() == [77]
