"""Batches of uint8 images for one rank: threads fetch, decode and augment straight into the batch."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.schema import Augment
from infra import store
from infra.errors import DataError
from models.data import decode
from models.data.cache import ShardCache
from models.data.manifest import Locator, Manifest
from models.data.order import Ids, epoch_order, eval_ids, rank_batch, steps_per_epoch

PREFETCH_BATCHES = 4  # bounds memory, and is deep enough to ride over one slow shard fetch


@dataclass(frozen=True)
class Batch:
    """``images [B, R, R, 3]`` uint8, ``labels [B]`` int64."""

    images: Tensor
    labels: Tensor


class Loader:
    """Reads one split of a manifest.

    Args:
        manifest: of the data set.
        manifest_uri: its address; the shards lie beside it.
        split: train, minival or val.
        side: of the images in pixels.
        augment: crop and flip settings.
        cache: folder for shards on local disk.
        threads: that decode; Pillow releases the GIL.
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
    ) -> None:
        self.shards = manifest.split(split)
        self.locator = Locator(self.shards)
        self.samples = manifest.samples(split)
        self.side = side
        self.augment = augment
        self.cache = ShardCache(store.join(manifest_uri.rpartition("/")[0]), cache)
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=f"load-{split}")
        self.inflight = max(PREFETCH_BATCHES, threads)

    def train_batches(
        self, seed: int, epoch: int, start_step: int, global_batch: int, rank: int, world_size: int
    ) -> Iterator[Batch]:
        """This rank's batches of one epoch from ``start_step`` on.

        A sample's crop and flip depend on (seed, epoch, sample id) alone, not on who reads it.
        """
        order = epoch_order([s.samples for s in self.shards], seed, epoch)
        steps = range(start_step, steps_per_epoch(self.samples, global_batch))
        slices = (rank_batch(order, step, global_batch, rank, world_size) for step in steps)
        yield from self._prefetched(slices, (seed, epoch))

    def eval_batches(self, batch: int, rank: int, world_size: int) -> Iterator[Batch]:
        """This rank's share of the split, unaugmented; the last batch may be smaller."""
        ids = eval_ids(self.samples, rank, world_size)
        yield from self._prefetched((ids[i : i + batch] for i in range(0, len(ids), batch)), None)

    def close(self) -> None:
        """Ends the threads and closes the shards."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.cache.close()

    def _prefetched(self, slices: Iterator[Ids], train_key: tuple[int, int] | None) -> Iterator[Batch]:
        pending: deque[Future[Batch]] = deque()
        try:
            for ids in slices:
                pending.append(self.pool.submit(self._assemble, ids, train_key))
                if len(pending) >= self.inflight:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _assemble(self, ids: Ids, train_key: tuple[int, int] | None) -> Batch:
        images = np.empty((len(ids), self.side, self.side, 3), np.uint8)
        for row, sample_id in enumerate(ids.tolist()):
            shard = self.locator.shard_of(sample_id)
            data = self.cache.read(shard, int(self.locator.offsets[sample_id]), int(self.locator.sizes[sample_id]))
            try:
                images[row] = self._pixels(data, sample_id, train_key)
            except DataError as error:
                raise DataError(f"shard {shard.name}, sample {sample_id}: {error}") from error
        return Batch(torch.from_numpy(images), torch.from_numpy(self.locator.labels[ids]))

    def _pixels(self, data: bytes, sample_id: int, train_key: tuple[int, int] | None) -> NDArray[np.uint8]:
        if train_key is None:
            return decode.eval_image(data, self.side, self.augment)
        rng = random.Random(f"{train_key[0]}/{train_key[1]}/{sample_id}")
        return decode.train_image(data, self.side, self.augment, rng)
