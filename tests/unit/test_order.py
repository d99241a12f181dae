"""Who reads what: every property over many sizes and seeds."""

import numpy as np
import pytest

from models.data.order import epoch_order, eval_ids, rank_batch, steps_per_epoch

CASES = [
    ([7], 0), ([5, 5, 5], 1), ([1, 9, 4, 30], 2), ([13] * 20, 3), (list(range(1, 90)), 4), ([100, 1], 5),
]  # fmt: skip


@pytest.mark.parametrize(("shards", "seed"), CASES)
@pytest.mark.parametrize("window", [1, 3, 64])
def test_an_epoch_reads_each_sample_exactly_once(shards: list[int], seed: int, window: int) -> None:
    order = epoch_order(shards, seed, epoch=2, window_shards=window)
    assert sorted(order.tolist()) == list(range(sum(shards)))


@pytest.mark.parametrize(("shards", "seed"), CASES)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_together_read_the_global_batch_in_equal_parts(shards: list[int], seed: int, world_size: int) -> None:
    order = epoch_order(shards, seed, 0)
    steps = steps_per_epoch(len(order), 4)
    read = []
    for step in range(steps):
        parts = [rank_batch(order, step, 4, rank, world_size) for rank in range(world_size)]
        assert {len(part) for part in parts} == {4 // world_size}
        read.append(np.concatenate(parts))
        assert read[-1].tolist() == order[4 * step : 4 * step + 4].tolist()  # the same at any world size
    assert len(np.concatenate(read)) == steps * 4 == len(order) // 4 * 4


@pytest.mark.parametrize(("shards", "seed"), CASES)
def test_the_order_is_a_function_of_sizes_seed_and_epoch(shards: list[int], seed: int) -> None:
    order = epoch_order(shards, seed, 1).tolist()
    assert epoch_order(list(shards), seed, 1).tolist() == order
    assert epoch_order(shards, seed, 2).tolist() != order
    assert epoch_order(shards, seed + 1, 1).tolist() != order


def test_the_order_stays_what_it_was_when_checkpoints_were_written() -> None:
    # shards 0 and 2 first, then shard 1; another numpy with other numbers would break every resume
    assert epoch_order([3, 2, 4], 0, 0, window_shards=2).tolist() == [0, 1, 7, 2, 8, 6, 5, 3, 4]


def test_the_remainder_that_is_left_out_differs_between_epochs() -> None:
    left_out = {tuple(sorted(epoch_order([10, 13], 0, epoch)[20:].tolist())) for epoch in range(5)}
    assert len(left_out) == 5


def test_samples_are_mixed_within_a_window_of_shards_and_not_beyond() -> None:
    order = epoch_order([10] * 12, 7, 0, window_shards=4)
    windows = [set((order[i : i + 40] // 10).tolist()) for i in range(0, 120, 40)]
    assert [len(window) for window in windows] == [4, 4, 4]
    assert set.union(*windows) == set(range(12))
    assert len(set((order[:10] // 10).tolist())) > 1  # not shard after shard


@pytest.mark.parametrize("start", [0, 1, 4])
def test_a_resumed_epoch_reads_the_suffix_that_was_missing(start: int) -> None:
    def batches(first: int) -> list[list[int]]:
        order = epoch_order([9, 8, 7], 11, 3)
        return [rank_batch(order, s, 4, 1, 2).tolist() for s in range(first, steps_per_epoch(24, 4))]

    assert batches(start) == batches(0)[start:]
    assert len(batches(0)) == 6


@pytest.mark.parametrize("samples", [1, 5, 64, 101])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_covers_each_sample_once_without_padding(samples: int, world_size: int) -> None:
    parts = [eval_ids(samples, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(samples))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_no_shards_are_an_empty_epoch() -> None:
    assert epoch_order([], 0, 0).tolist() == []
    assert steps_per_epoch(0, 4) == 0
