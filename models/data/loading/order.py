"""Who reads what is arithmetic on seed, epoch and sizes; no I/O in sight.

An epoch is cut into L *logical shards* of the global batch, which stay the same at any number of ranks. Logical
shard l reads the run ``[l * S * b, (l + 1) * S * b)`` of the epoch's order (S steps, b = global batch / L) from its
beginning to its end, b samples a step. Rank r of W (W divides L) reads for the logical shards
``[r * L / W, (r + 1) * L / W)``. So the samples of a global step, and who of the logical shards gets which, hang
neither on the ranks nor on threads; each sample is read once an epoch; (epoch, step) is all that a resume needs; and
a machine fetches the tars of its own runs only, not all of them.

**The window.** Tars are filled from a global shuffle, so each is a fair sample of the whole set, and their order is
drawn anew each epoch. What is left to do is that the same images should not meet again: samples are mixed with those
of the neighbouring tars. Each sample is put off by up to a window from the start of its tar, so a run opens its tars
one after another and has about ``WINDOW_SHARDS`` of them open. ImageNet (1,024 tars of 1,250) in 64 runs: 20,000
samples 16 tars each, of which 8 are mixed at a time (10,000 samples). The first batch needs one or two tars for each
logical shard of the machine; blocks of 64 tars, shuffled whole, would need all 64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infra.errors import ConfigError
from models.data.loading.randomness import uniforms

WINDOW_SHARDS = 8
_ORDER_STREAM = 2**32  # beyond any seed: the order must not draw the numbers that a sample's crop draws
_SHARD_STREAM = 2**33
Ids = NDArray[np.int64]


def epoch_order(
    shard_samples: Sequence[int],
    seed: int,
    epoch: int,
    window_shards: int = WINDOW_SHARDS,
    run_samples: int | None = None,
) -> Ids:
    """Sample ids of one epoch in reading order, each exactly once.

    Args:
        shard_samples: samples of each tar; ids run over the tars in this order.
        seed: of the job.
        epoch: counted from 0.
        window_shards: tars of mean size whose samples are mixed.
        run_samples: samples that one logical shard reads; mixing does not cross from one run into the next.
            None: the epoch is one run.
    """
    sizes = np.asarray(shard_samples, np.int64)
    total = int(sizes.sum())
    if total == 0:
        return np.zeros(0, np.int64)
    # Not numpy's generators: their streams may change with a release, and every resume would break.
    shards = np.argsort(uniforms(seed + _SHARD_STREAM, epoch, np.arange(len(sizes)), 1)[:, 0], kind="stable")
    first_id = np.cumsum(sizes) - sizes
    starts = np.cumsum(sizes[shards]) - sizes[shards]  # of the tars in the order of this epoch
    ids = np.arange(total) + np.repeat(first_id[shards] - starts, sizes[shards])
    drawn = uniforms(seed + _ORDER_STREAM, epoch, ids, 2)
    # Within its tar first: which samples of it fall into the next run, or out of the epoch, changes every epoch.
    ranks = np.repeat(np.arange(len(sizes)), sizes[shards])
    shuffled = np.argsort(ranks + drawn[:, 0], kind="stable")
    run = np.arange(total) // (run_samples or total)
    delay = drawn[shuffled, 1] * (window_shards * total / len(sizes))
    mixed = np.lexsort((np.repeat(starts, sizes[shards]) + delay, run))
    return np.asarray(ids[shuffled[mixed]])


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Full global batches in an epoch; the remainder (other samples each epoch) is left out."""
    return samples // global_batch


def check_batch(global_batch: int, logical_shards: int, world_size: int, samples: int) -> None:
    """Refuses a global batch that cannot be cut into equal parts, or that the data cannot fill once.

    Raises:
        ConfigError: with the two numbers that disagree.
    """
    if global_batch % logical_shards:
        raise ConfigError(
            f"recipe.global_batch {global_batch} cannot be cut into recipe.logical_shards {logical_shards} equal "
            f"parts; take a multiple of {logical_shards}"
        )
    if logical_shards % world_size:
        raise ConfigError(
            f"recipe.logical_shards {logical_shards} cannot be shared out evenly to {world_size} processes "
            f"(launch.nproc_per_node, on all nodes); take a divisor of {logical_shards}"
        )
    if global_batch > samples:
        raise ConfigError(f"recipe.global_batch {global_batch} is larger than the {samples} training samples; lower it")


def rank_ids(order: Ids, global_batch: int, logical_shards: int, rank: int, world_size: int) -> Ids:
    """What ``rank`` reads in an epoch: ``[steps, rank_batch]``, one row a step, its logical shards side by side.

    Args:
        order: of the epoch, made with ``run_samples(...)``.
        global_batch: divisible by ``logical_shards``.
        logical_shards: divisible by ``world_size``.
        rank: of this process.
        world_size: number of processes.
    """
    steps, part = steps_per_epoch(len(order), global_batch), global_batch // logical_shards
    own = logical_shards // world_size
    runs = order[: steps * global_batch].reshape(logical_shards, steps, part)[rank * own : (rank + 1) * own]
    return np.ascontiguousarray(runs.transpose(1, 0, 2)).reshape(steps, own * part)


def run_samples(samples: int, global_batch: int, logical_shards: int) -> int:
    """Samples that one logical shard reads in an epoch."""
    return steps_per_epoch(samples, global_batch) * (global_batch // logical_shards)


def eval_ids(samples: int, rank: int, world_size: int) -> Ids:
    """Ids that ``rank`` evaluates, in a row: every sample on one rank, no padding; sizes differ by one at most."""
    return np.arange(samples * rank // world_size, samples * (rank + 1) // world_size, dtype=np.int64)


def first_uses(shard_numbers: NDArray[np.int64], batch: int) -> list[tuple[int, int]]:
    """In which order a reader meets the tars.

    Args:
        shard_numbers: index of the tar of each sample, in reading order.
        batch: samples a step.

    Returns:
        (step, index of the tar), by step.
    """
    found, at = np.unique(shard_numbers, return_index=True)
    by_use = np.argsort(at, kind="stable")
    return list(zip((at[by_use] // batch).tolist(), found[by_use].tolist(), strict=True))
