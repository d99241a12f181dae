"""Concurrent items become batches, in order, and one that comes alone does not wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from tasks.registry.batching import Batcher, Limits


class Slow:
    """Doubles numbers; the first batch waits until it is released. Records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.release = threading.Event()
        self.running = 0

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.running += 1
        assert self.running == 1, "two batches run at the same time"
        self.batches.append(list(items))
        assert self.release.wait(10)
        self.running -= 1
        if -1 in items:
            raise RuntimeError("no memory")
        return [2 * item for item in items]


def run(slow: Any, limits: Limits, first: Sequence[int], then: Sequence[int]) -> list[Any]:
    """Submits ``first``, and ``then`` once a batch is running; returns the answers or errors, in order."""

    async def main() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(slow, limits)
        work = asyncio.create_task(batcher.work())
        waiting = [asyncio.create_task(batcher.submit(item)) for item in first]
        while not slow.batches:
            await asyncio.sleep(0.001)
        waiting += [asyncio.create_task(batcher.submit(item)) for item in then]
        await asyncio.sleep(0.01)
        slow.release.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        return answers

    return asyncio.run(main())


def test_items_that_come_while_a_batch_runs_are_the_next_batches_up_to_the_limit() -> None:
    slow = Slow()
    assert run(slow, Limits(max_batch=4), [1], range(2, 9)) == [2 * item for item in range(1, 9)]
    assert slow.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]


def test_an_incomplete_batch_waits_as_long_as_it_may_and_a_full_one_does_not() -> None:
    for limits, least, most in ((Limits(max_wait_s=0.2), 0.2, 5.0), (Limits(max_batch=2, max_wait_s=60), 0.0, 5.0)):
        slow = Slow()
        slow.release.set()
        began = time.monotonic()
        assert run(slow, limits, [1, 2], []) == [2, 4]
        assert least <= time.monotonic() - began < most
        assert slow.batches == [[1, 2]]


def test_an_error_is_that_of_its_batch_and_the_next_one_is_answered() -> None:
    first, second, third = run(Slow(), Limits(max_batch=2), [-1], [5, 6])
    assert (str(first), second, third) == ("no memory", 10, 12)


def test_a_cancelled_item_is_not_processed() -> None:
    slow = Slow()

    async def main() -> int:
        batcher: Batcher[int, int] = Batcher(slow, Limits())
        work = asyncio.create_task(batcher.work())
        running = asyncio.create_task(batcher.submit(1))
        while not slow.batches:
            await asyncio.sleep(0.001)
        left, kept = asyncio.create_task(batcher.submit(2)), asyncio.create_task(batcher.submit(3))
        await asyncio.sleep(0.01)
        left.cancel()
        await asyncio.sleep(0.01)
        slow.release.set()
        await running
        answer = await kept
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        return answer

    assert asyncio.run(main()) == 6
    assert slow.batches == [[1], [3]]


@pytest.mark.parametrize("count", [1, 40])
def test_the_answers_are_those_of_the_items_in_any_number(count: int) -> None:
    slow = Slow()
    slow.release.set()
    assert run(slow, Limits(max_batch=16), range(count), []) == [2 * item for item in range(count)]
