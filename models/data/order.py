"""Who reads what is arithmetic on seed, epoch and sizes; no I/O in sight.

The order of an epoch is a pure function of (shard sizes, seed, epoch). Global step s reads the slice
[s * G, (s + 1) * G) of it, rank r its r-th part. So every rank has equal batches, each sample is read once
an epoch at any number of ranks, and (epoch, step) is all that a resume needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infra.errors import ConfigError

Ids = NDArray[np.int64]


def epoch_order(shard_samples: Sequence[int], seed: int, epoch: int, window_shards: int = 64) -> Ids:
    """Sample ids of one epoch in reading order, each exactly once.

    Shards are shuffled whole, then samples within windows of ``window_shards`` shards, so that a reader
    holds only a window of shards at a time. The shards themselves were filled from a global shuffle.

    Args:
        shard_samples: samples of each shard; ids run over the shards in this order.
        seed: of the job.
        epoch: counted from 0.
        window_shards: shards whose samples are mixed.
    """
    rng = np.random.default_rng([seed, epoch])
    first = np.concatenate([[0], np.cumsum(shard_samples)]).astype(np.int64)
    shards = rng.permutation(len(shard_samples))
    windows = []
    for start in range(0, len(shards), window_shards):
        ids = np.concatenate([np.arange(first[s], first[s + 1]) for s in shards[start : start + window_shards]])
        windows.append(rng.permutation(ids))
    return np.concatenate(windows) if windows else np.zeros(0, np.int64)


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Full global batches in an epoch; the remainder (other samples each epoch) is left out."""
    return samples // global_batch


def check_batch(global_batch: int, world_size: int, samples: int) -> None:
    """Refuses a global batch that cannot be cut into equal ranks, or that the data cannot fill once.

    Raises:
        ConfigError: with the two numbers that disagree.
    """
    if global_batch % world_size:
        raise ConfigError(
            f"recipe.global_batch {global_batch} cannot be cut into {world_size} equal ranks; "
            f"take a multiple of {world_size}"
        )
    if global_batch > samples:
        raise ConfigError(f"recipe.global_batch {global_batch} is larger than the {samples} training samples; lower it")


def rank_batch(order: Ids, step: int, global_batch: int, rank: int, world_size: int) -> Ids:
    """Ids that ``rank`` reads at ``step`` of the epoch: its part of the global batch.

    Args:
        order: of the epoch.
        step: within the epoch, counted from 0.
        global_batch: divisible by ``world_size``.
        rank: of this process.
        world_size: number of processes.
    """
    size = global_batch // world_size
    start = step * global_batch + rank * size
    return order[start : start + size]


def eval_ids(samples: int, rank: int, world_size: int) -> Ids:
    """Ids that ``rank`` evaluates: every sample on exactly one rank, no padding; sizes may differ by one."""
    return np.arange(rank, samples, world_size, dtype=np.int64)
