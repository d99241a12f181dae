"""Reading order: every property over many sizes, seeds, ranks and resume points."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.errors import ConfigError
from models.data.loading.order import (
    check_batch,
    epoch_order,
    eval_ids,
    first_uses,
    rank_ids,
    run_samples,
    steps_per_epoch,
)

many = settings(max_examples=150, deadline=None)
SHARDS = st.lists(st.integers(1, 60), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[list[int], int, int, int, int]:
    """Tar sizes, seed, batch slices, a number of ranks that divides them, a global batch that the data fills."""
    world_size = draw(st.sampled_from([1, 2, 3, 4, 8]))
    batch_slices = world_size * draw(st.integers(1, 4))
    part = draw(st.integers(1, 5))
    shards = draw(SHARDS.filter(lambda sizes: sum(sizes) >= batch_slices * part))
    return shards, draw(SEEDS), batch_slices, world_size, batch_slices * part


def epoch_of(
    shards: list[int], seed: int, epoch: int, batch_slices: int, world_size: int, batch: int
) -> list[NDArray[np.int64]]:
    """``[steps, rank batch]`` of every rank."""
    order = epoch_order(shards, seed, epoch, run_samples=run_samples(sum(shards), batch, batch_slices))
    return [rank_ids(order, batch, batch_slices, rank, world_size) for rank in range(world_size)]


@many
@given(jobs())
def test_an_epoch_reads_a_sample_at_most_once_and_drops_less_than_a_batch(
    job: tuple[list[int], int, int, int, int],
) -> None:
    shards, seed, batch_slices, world_size, batch = job
    read = np.concatenate([ids.reshape(-1) for ids in epoch_of(shards, seed, 1, batch_slices, world_size, batch)])
    assert len(np.unique(read)) == len(read) == sum(shards) // batch * batch
    assert read.min() >= 0
    assert read.max() < sum(shards)


@pytest.mark.slow
@many
@given(jobs())
def test_every_rank_has_equal_batches(job: tuple[list[int], int, int, int, int]) -> None:
    shards, seed, batch_slices, world_size, batch = job
    shapes = {ids.shape for ids in epoch_of(shards, seed, 0, batch_slices, world_size, batch)}
    assert shapes == {(sum(shards) // batch, batch // world_size)}


@many
@given(jobs())
def test_the_concatenated_batches_are_the_same_for_any_number_of_ranks(
    job: tuple[list[int], int, int, int, int],
) -> None:
    shards, seed, batch_slices, world_size, batch = job
    one = epoch_of(shards, seed, 2, batch_slices, 1, batch)[0]
    several = epoch_of(shards, seed, 2, batch_slices, world_size, batch)
    assert np.array_equal(np.concatenate(several, axis=1), one)


@many
@given(jobs(), st.data())
def test_an_epoch_resumed_at_any_step_with_any_number_of_ranks_reads_the_remaining_samples(
    job: tuple[list[int], int, int, int, int], data: st.DataObject
) -> None:
    shards, seed, batch_slices, world_size, batch = job
    step = data.draw(st.integers(0, sum(shards) // batch))
    before = [ids[:step] for ids in epoch_of(shards, seed, 5, batch_slices, 1, batch)]
    after = [ids[step:] for ids in epoch_of(shards, seed, 5, batch_slices, world_size, batch)]
    read = np.concatenate([part.reshape(-1) for part in before + after])
    assert len(np.unique(read)) == len(read) == sum(shards) // batch * batch


@many
@given(SHARDS, SEEDS, st.integers(1, 20), st.integers(1, 200))
def test_the_whole_order_is_a_permutation(shards: list[int], seed: int, window: int, run: int) -> None:
    order = epoch_order(shards, seed, epoch=2, window_shards=window, run_samples=run)
    assert sorted(order.tolist()) == list(range(sum(shards)))


@many
@given(SHARDS.filter(lambda sizes: sum(sizes) > 20), SEEDS)
def test_the_order_is_a_function_of_sizes_seed_and_epoch(shards: list[int], seed: int) -> None:
    order = epoch_order(shards, seed, 1).tolist()
    assert epoch_order(list(shards), seed, 1).tolist() == order
    assert epoch_order(shards, seed, 2).tolist() != order
    assert epoch_order(shards, seed + 1, 1).tolist() != order


def test_the_order_is_that_of_earlier_versions() -> None:
    # another order would silently break every resume
    assert epoch_order([3, 2, 4], 0, 0, window_shards=2).tolist() == PINNED


PINNED = [3, 4, 0, 8, 5, 6, 1, 2, 7]


def test_a_batch_slice_reads_one_run_of_the_order_from_its_beginning_to_its_end() -> None:
    order = epoch_order([50] * 4, 3, 0, run_samples=run_samples(200, 24, 4))
    ids = rank_ids(order, 24, 4, 1, 2)  # batch slices 2 and 3 of 4, six samples per slice, eight steps
    assert ids.shape == (8, 12)
    assert ids[:, :6].reshape(-1).tolist() == order[96:144].tolist()
    assert ids[:, 6:].reshape(-1).tolist() == order[144:192].tolist()


def test_the_dropped_remainder_differs_between_epochs() -> None:
    left_out = {tuple(sorted(epoch_order([23], 0, epoch, run_samples=20)[20:].tolist())) for epoch in range(5)}
    assert len(left_out) == 5


def test_the_first_batch_needs_two_tars_of_a_run_and_later_ones_mix_the_window() -> None:
    order = epoch_order([1250] * 64, 7, 0, run_samples=16 * 1250)
    run = order[16 * 1250 : 32 * 1250] // 1250
    assert len(set(run[:64].tolist())) <= 2
    assert len(set(run[9000:11000].tolist())) >= 7
    assert len(set(run.tolist())) <= 17  # its sixteen tars, and one shared with the next run


def test_tars_are_opened_sequentially() -> None:
    order = epoch_order([100] * 32, 1, 0)
    opened = [int(np.argmax(order // 100 == tar)) for tar in range(32)]
    gaps = np.diff(sorted(opened))
    assert gaps.max() <= 400  # no burst: at most a few tars' worth of samples between two openings ...
    assert len(set((order[:200] // 100).tolist())) <= 5  # ... and few at the start


def test_samples_of_a_tar_have_another_order_in_every_epoch() -> None:
    first, second = (epoch_order([40], 0, epoch) for epoch in (0, 1))
    assert first.tolist() != list(range(40))
    assert abs(np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]) < 0.5


@pytest.mark.slow
def test_the_order_of_imagenet_takes_less_than_half_a_second() -> None:
    sizes = [1252] * 147 + [1251] * 877
    for _ in range(3):
        began = time.process_time()
        order = epoch_order(sizes, 0, 7, run_samples=run_samples(sum(sizes), 4096, 64))
        took = time.process_time() - began
        assert len(order) == sum(sizes)
        if took < 0.5:
            return
    pytest.fail(f"the last of three attempts took {took:.2f} s")


@pytest.mark.parametrize(
    ("batch", "batch_slices", "world_size", "samples", "text"),
    [
        (100, 64, 1, 10_000, r"recipe\.global_batch 100 .* recipe\.batch_slices 64"),
        (128, 64, 3, 10_000, r"recipe\.batch_slices 64 .* 3 processes .*launch\.nproc_per_node"),
        (4096, 64, 8, 4000, r"recipe\.global_batch 4096 is larger than the 4000 training samples"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_with_both_numbers(
    batch: int, batch_slices: int, world_size: int, samples: int, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        check_batch(batch, batch_slices, world_size, samples)


def test_sizes_that_divide_are_accepted() -> None:
    check_batch(4096, 64, 8, 1_281_167)


@many
@given(st.integers(0, 500), st.integers(1, 17))
def test_evaluation_covers_every_sample_once_in_contiguous_parts_without_padding(samples: int, world_size: int) -> None:
    parts = [eval_ids(samples, rank, world_size) for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == list(range(samples))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_tars_are_listed_in_reading_order() -> None:
    assert first_uses(np.array([4, 4, 1, 4, 0, 1, 2]), 3) == [(0, 4), (0, 1), (1, 0), (2, 2)]
    assert first_uses(np.zeros(0, np.int64), 3) == []


def test_without_shards_an_epoch_is_empty() -> None:
    assert epoch_order([], 0, 0).tolist() == []
    assert steps_per_epoch(0, 4) == 0
