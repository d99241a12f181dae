"""Reading order and its distribution over ranks, as arithmetic on seed, epoch and sizes; no I/O.

The global batch is divided into L *batch slices*, independent of the number of ranks. Batch slice l reads the run
``[l * S * b, (l + 1) * S * b)`` of the epoch's order (S steps, b = global batch / L) sequentially, b samples per step.
Rank r of W (W divides L) reads for the batch slices ``[r * L / W, (r + 1) * L / W)``. So the samples of a global step
and their assignment to batch slices depend neither on ranks nor on threads; each sample is read at most once per
epoch; a resume needs only (epoch, step); and a machine fetches only the tars of its runs, not all of them.

**The window.** Tars are filled from a global shuffle, so each is a random sample of the whole set, and their order is
redrawn every epoch. To keep the same images from appearing together again, samples are also mixed with those of the
neighboring tars: each sample is delayed by up to a window from the start of its tar, so a run opens its tars one after
another and has about ``WINDOW_SHARDS`` of them open. ImageNet (1,024 tars of 1,250) has 64 runs of 20,000 samples or 16
tars, of which 8 are mixed at a time (10,000 samples). The first batch needs one or two tars for each batch slice of
the machine; shuffling whole blocks of 64 tars would need all 64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infra.errors import ConfigError
from models.data.loading.randomness import uniforms

WINDOW_SHARDS = 8
_ORDER_STREAM = 2**32  # beyond any seed: the order must not reuse the random numbers of the samples' crops
_SHARD_STREAM = 2**33
Ids = NDArray[np.int64]


def epoch_order(
    shard_samples: Sequence[int],
    seed: int,
    epoch: int,
    window_shards: int = WINDOW_SHARDS,
    run_samples: int | None = None,
) -> Ids:
    """Returns the sample ids of one epoch in reading order, each exactly once.

    Args:
        shard_samples: Number of samples of each tar; ids are consecutive over the tars in this order.
        seed: Seed of the job.
        epoch: Epoch, counted from 0.
        window_shards: Size of the mixing window, in tars of mean size.
        run_samples: Number of samples that one batch slice reads; samples are not mixed across runs.
            None: the epoch is one run.
    """
    sizes = np.asarray(shard_samples, np.int64)
    total = int(sizes.sum())
    if total == 0:
        return np.zeros(0, np.int64)
    # Not numpy's generators: a release may change their streams, which would break every resume.
    shards = np.argsort(uniforms(seed + _SHARD_STREAM, epoch, np.arange(len(sizes)), 1)[:, 0], kind="stable")
    first_id = np.cumsum(sizes) - sizes
    starts = np.cumsum(sizes[shards]) - sizes[shards]  # of the tars in this epoch's order
    ids = np.arange(total) + np.repeat(first_id[shards] - starts, sizes[shards])
    u = uniforms(seed + _ORDER_STREAM, epoch, ids, 2)
    # Shuffle within tars first, so that the samples that fall into the next run, or out of the epoch, vary by epoch.
    ranks = np.repeat(np.arange(len(sizes)), sizes[shards])
    shuffled = np.argsort(ranks + u[:, 0], kind="stable")
    run = np.arange(total) // (run_samples or total)
    delay = u[shuffled, 1] * (window_shards * total / len(sizes))
    mixed = np.lexsort((np.repeat(starts, sizes[shards]) + delay, run))
    return np.asarray(ids[shuffled[mixed]])


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Full global batches in an epoch; the remainder (different samples every epoch) is dropped."""
    return samples // global_batch


def check_batch(global_batch: int, batch_slices: int, world_size: int, samples: int) -> None:
    """Refuses a global batch that cannot be divided equally, or that is larger than the data set.

    Raises:
        ConfigError: the message gives the two numbers that disagree.
    """
    if global_batch % batch_slices:
        raise ConfigError(
            f"recipe.global_batch {global_batch} cannot be divided into recipe.batch_slices {batch_slices} equal "
            f"parts; use a multiple of {batch_slices}"
        )
    if batch_slices % world_size:
        raise ConfigError(
            f"recipe.batch_slices {batch_slices} cannot be distributed evenly over {world_size} processes "
            f"(launch.nproc_per_node, on all nodes); use a divisor of {batch_slices}"
        )
    if global_batch > samples:
        raise ConfigError(f"recipe.global_batch {global_batch} is larger than the {samples} training samples; lower it")


def rank_ids(order: Ids, global_batch: int, batch_slices: int, rank: int, world_size: int) -> Ids:
    """Returns the ids that ``rank`` reads in an epoch, ``[steps, rank_batch]``, batch slices concatenated per step.

    Args:
        order: Order of the epoch, created with ``run_samples(...)``.
        global_batch: Global batch size, divisible by ``batch_slices``.
        batch_slices: Number of batch slices, divisible by ``world_size``.
        rank: Rank of this process.
        world_size: Number of processes.
    """
    steps, slice_size = steps_per_epoch(len(order), global_batch), global_batch // batch_slices
    slices_per_rank = batch_slices // world_size
    runs = order[: steps * global_batch].reshape(batch_slices, steps, slice_size)[
        rank * slices_per_rank : (rank + 1) * slices_per_rank
    ]
    return np.ascontiguousarray(runs.transpose(1, 0, 2)).reshape(steps, slices_per_rank * slice_size)


def run_samples(samples: int, global_batch: int, batch_slices: int) -> int:
    """Number of samples that one batch slice reads in an epoch."""
    return steps_per_epoch(samples, global_batch) * (global_batch // batch_slices)


def eval_ids(samples: int, rank: int, world_size: int) -> Ids:
    """Returns the consecutive ids that ``rank`` evaluates: no duplicates, no padding; sizes differ by at most one."""
    return np.arange(samples * rank // world_size, samples * (rank + 1) // world_size, dtype=np.int64)


def first_uses(shard_numbers: NDArray[np.int64], batch: int) -> list[tuple[int, int]]:
    """Returns the order in which a reader first uses the tars.

    Args:
        shard_numbers: Tar index of every sample, in reading order.
        batch: Number of samples per step.

    Returns:
        (step, tar index), ordered by step.
    """
    tars, positions = np.unique(shard_numbers, return_index=True)
    order = np.argsort(positions, kind="stable")
    return list(zip((positions[order] // batch).tolist(), tars[order].tolist(), strict=True))
