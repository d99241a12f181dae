"""Loads batches of uint8 images for one rank: threads read, decode and augment directly into the batch.

Random draws for a batch are a few array expressions; then chunks of images go to a thread pool. Chunks of one batch run
concurrently, so a batch in flight keeps all threads busy, and results do not depend on their order of execution.

A shard is verified as a whole when it is fetched; each sample's checksum is verified again when it is read. That costs
0.004 ms of 0.9 (Intel Xeon, ImageNet at 224 pixels) and detects later corruption on the cache disk, including that of
power cuts.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from conf.data_set import BICUBIC
from conf.schema import Augment
from infra import store
from infra.errors import DataError
from models.data.loading import auto_augment as augmentation
from models.data.loading import crops, decode
from models.data.loading.auto_augment import Ops
from models.data.loading.cache import ShardCache
from models.data.loading.order import Ids, epoch_order, eval_ids, first_uses, rank_ids, run_samples
from models.data.loading.prefetch import AHEAD_BYTES, Prefetcher
from models.data.loading.randomness import uniforms
from models.data.loading.stats import LoaderStats, Meter
from models.data.shards.manifest import Manifest, Samples, Shard

log = logging.getLogger("effnet")
CHUNK_IMAGES = 8  # per task of the pool: long compared with Python's overhead, short compared with a batch
PREFETCH_BATCHES = 4  # at most, including the one the consumer waits for ...
PREFETCH_BYTES = 2**30  # ... and at least two, even if they exceed this
CACHE_BYTES = 200 * 10**9


@dataclass(frozen=True)
class Batch:
    """``images [B, R, R, 3]`` uint8, ``labels [B]`` int64, ``ids [B]``: sample ids in the split, on the host."""

    images: Tensor
    labels: Tensor
    ids: Ids


@dataclass(frozen=True)
class _Work:
    """A batch being filled."""

    batch: Batch
    pixels: NDArray[np.uint8]  # the memory of batch.images
    ids: Ids
    rows: NDArray[np.void]
    shards: list[int]  # shard of each image, as index into the split's shards
    boxes: crops.Boxes
    flips: NDArray[np.bool_]
    ops: Ops | None
    interpolation: str


class Loader:
    """Reads a split of a manifest.

    Args:
        manifest: Manifest of the data set.
        manifest_uri: Address of the manifest; the shards are in the same folder.
        split: One of train, minival and val, or several joined by ``+``.
        side: Side of the images in pixels.
        augment: Crop and flip settings, and the augmentation policy.
        cache: Folder for shards on local disk, shared by the ranks of a machine.
        threads: Number of decoding threads; the decoder releases the GIL.
        cache_bytes: Maximum size of that folder.
    """

    def __init__(
        self,
        manifest: Manifest,
        manifest_uri: str,
        split: str,
        side: int,
        augment: Augment,
        cache: Path,
        threads: int,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.rows = Samples(manifest, split.split("+"))
        self.samples = len(self.rows)
        self.classes = len(manifest.classes)
        self.side = side
        self.augment = augment
        self.cache = ShardCache(store.join(manifest_uri.rpartition("/")[0]), cache, cache_bytes)
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=f"load-{split}")
        self.meter = Meter()
        self._prefetchers: list[Prefetcher] = []
        self._warned = False
        self.pin = torch.cuda.is_available()  # pinned memory allows asynchronous copies to the GPU

    def train_batches(
        self, seed: int, epoch: int, start_step: int, global_batch: int, batch_slices: int, rank: int, world_size: int
    ) -> Iterator[Batch]:
        """Yields this rank's batches of one epoch from ``start_step`` on: its batch slices, concatenated.

        A sample's crop, flip and operations depend only on (seed, epoch, sample id), not on the rank or thread.

        Raises:
            DataError: a shard or an image is damaged; the message names it.
            TransientError: the store was unavailable for four minutes.
        """
        run = run_samples(self.samples, global_batch, batch_slices)
        order = epoch_order([s.samples for s in self.rows.shards], seed, epoch, run_samples=run)
        ids = rank_ids(order, global_batch, batch_slices, rank, world_size)[start_step:]
        yield from self._batches(ids.reshape(-1), global_batch // world_size, (seed, epoch))

    def eval_batches(self, batch: int, rank: int, world_size: int) -> Iterator[Batch]:
        """Yields this rank's part of the split, unaugmented; the last batch may be smaller. Raises like training."""
        yield from self._batches(eval_ids(self.samples, rank, world_size), batch, None)

    def stats(self) -> LoaderStats:
        """Returns what was read and waited for since the loader was created."""
        return self.meter.stats(self.cache)

    def close(self) -> None:
        """Stops the threads and closes the shards."""
        self.cache.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
        for prefetcher in self._prefetchers:
            prefetcher.stop()
            prefetcher.join()

    def _batches(self, ids: Ids, batch: int, key: tuple[int, int] | None) -> Iterator[Batch]:
        """Yields batches in order; a few are being filled while the consumer works on the previous one."""
        numbers = self.rows.shard_numbers(ids)
        uses = [(step, self.rows.shards[number]) for step, number in first_uses(numbers, batch)]
        self._warn_if_cache_too_small([shard for _, shard in uses])
        prefetcher = Prefetcher(self.cache, uses, min(AHEAD_BYTES, self.cache.cap_bytes // 4))
        self._prefetchers = [running for running in self._prefetchers if running.is_alive()] + [prefetcher]
        max_pending = max(2, min(PREFETCH_BATCHES, PREFETCH_BYTES // (batch * self.side**2 * 3)))
        pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for step, start in enumerate(range(0, len(ids), batch)):
                prefetcher.advance(step)
                part = slice(start, start + batch)
                pending.append(self._submit(ids[part], numbers[part], key))
                if len(pending) >= max_pending:
                    yield self._wait_for(*pending.popleft())
            while pending:
                yield self._wait_for(*pending.popleft())
        finally:
            for _, chunks in pending:
                for chunk in chunks:
                    chunk.cancel()
            prefetcher.stop()

    def _warn_if_cache_too_small(self, shards: Sequence[Shard]) -> None:
        needed, cap = sum(shard.bytes for shard in shards), self.cache.cap_bytes
        if needed > cap and not self._warned:
            self._warned = True
            log.warning(
                "an epoch reads %.3g GB of shards and the cache holds %.3g GB: every epoch fetches them again; "
                "raise runtime.cache_gb if the disk has space",
                needed / 1e9,
                cap / 1e9,
            )

    def _wait_for(self, batch: Batch, chunks: list[Future[None]]) -> Batch:
        began = time.monotonic()
        for chunk in chunks:
            chunk.result()
        self.meter.waited(time.monotonic() - began)
        return batch

    def _submit(
        self, ids: Ids, numbers: NDArray[np.int64], key: tuple[int, int] | None
    ) -> tuple[Batch, list[Future[None]]]:
        work = self._draw(ids, numbers, key)
        starts = range(0, len(ids), CHUNK_IMAGES)
        chunks = [self.pool.submit(self._fill, work, slice(start, start + CHUNK_IMAGES)) for start in starts]
        return work.batch, chunks

    def _draw(self, ids: Ids, numbers: NDArray[np.int64], key: tuple[int, int] | None) -> _Work:
        """Prepares everything of a batch except its pixels; ``key`` is (seed, epoch), None for evaluation."""
        rows = self.rows.rows[ids]
        widths, heights = rows["width"].astype(np.int64), rows["height"].astype(np.int64)
        ops: Ops | None = None
        interpolation = BICUBIC
        if key is None:
            interpolation = self.augment.eval_interpolation
            boxes = crops.eval_boxes(widths, heights, self.side, self.augment.evaluation)
            flips = np.zeros(len(ids), np.bool_)
        else:
            u = uniforms(*key, ids, crops.DRAWS + augmentation.draws(self.augment))
            crop_u, policy_u = u[:, : crops.DRAWS], u[:, crops.DRAWS :]
            boxes, flips = crops.train_boxes(widths, heights, crop_u, self.augment, self.side)
            ops = augmentation.sample_ops(self.augment, policy_u, self.side)
        images = torch.empty((len(ids), self.side, self.side, 3), dtype=torch.uint8, pin_memory=self.pin)
        labels = torch.from_numpy(rows["label"].astype(np.int64))
        batch = Batch(images, labels.pin_memory() if self.pin else labels, ids)
        return _Work(batch, images.numpy(), ids, rows, numbers.tolist(), boxes, flips, ops, interpolation)

    def _fill(self, work: _Work, part: slice) -> None:
        """Reads and decodes one chunk in a pool thread."""
        began = time.thread_time()
        blobs = self._read(work, part)
        ops = None if work.ops is None else Ops(work.ops.codes[part], work.ops.args[part])
        try:
            boxes, flips = work.boxes[part], work.flips[part]
            decode.fill(work.pixels[part], blobs, boxes, flips, ops, interpolation=work.interpolation)
        except decode.DecodeError as error:
            shard = self.rows.shards[work.shards[part][error.index]]
            raise DataError(f"shard {shard.name}, sample {work.ids[part][error.index]}: {error.reason}") from error
        self.meter.decoded(len(blobs), time.thread_time() - began, sum(map(len, blobs)))

    def _read(self, work: _Work, part: slice) -> list[bytes]:
        rows = work.rows[part]
        locations = zip(work.shards[part], rows["offset"].tolist(), rows["size"].tolist(), strict=True)
        blobs = [self.cache.read(self.rows.shards[number], offset, size) for number, offset, size in locations]
        for i, checksum in enumerate(rows["xxh3"].tolist()):
            if xxhash.xxh3_64_intdigest(blobs[i]) != checksum:
                shard, row = self.rows.shards[work.shards[part][i]], rows[i]
                log.warning(
                    "%s in the shard cache: sample %d has changed; fetching again", shard.name, work.ids[part][i]
                )
                self.cache.forget(shard, delete=True)
                blobs[i] = self.cache.read(shard, int(row["offset"]), int(row["size"]))
                if xxhash.xxh3_64_intdigest(blobs[i]) != checksum:
                    raise DataError(
                        f"shard {shard.name}, sample {work.ids[part][i]}: its checksum does not match the manifest"
                    )
        return blobs
