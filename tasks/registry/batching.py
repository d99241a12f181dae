"""Runs concurrent requests in batches: one pass over several images costs less than one pass for each.

While a batch runs, the next requests wait and become the next batch, so a request that comes alone waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        max_batch: Images of a batch.
        max_wait_s: Time for which an incomplete batch waits for more images.
        max_requests: Requests in progress; more are refused.
    """

    max_batch: int = 16
    max_wait_s: float = 0.0
    max_requests: int = 64


class Batcher(Generic[Item, Answer]):
    """A queue of items that one thread processes in batches.

    Args:
        process: Returns the answers to a batch, in its order; called in one thread, never twice at a time.
        limits: Size of a batch, and how long an incomplete one waits.
    """

    def __init__(self, process: Callable[[Sequence[Item]], Sequence[Answer]], limits: Limits) -> None:
        self._process, self._limits = process, limits
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Answer]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "batch")

    async def submit(self, item: Item) -> Answer:
        """Returns the answer to an item, as soon as its batch is done; raises what ``process`` raises."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((item, future))
        return await future

    async def work(self) -> None:
        """Processes batches until it is cancelled."""
        try:
            while True:
                batch = [(item, future) for item, future in await self._collect() if not future.done()]
                if batch:
                    await self._answer(batch)
        finally:
            self._thread.shutdown(wait=False)

    async def _collect(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch = [await self._queue.get()]
        ends = asyncio.get_running_loop().time() + self._limits.max_wait_s
        while len(batch) < self._limits.max_batch:
            try:
                batch.append(self._queue.get_nowait())
            except asyncio.QueueEmpty:
                left = ends - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), left))
                except TimeoutError:
                    break
        return batch

    async def _answer(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        items = [item for item, _ in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._process, items)
        except Exception as error:  # noqa: BLE001 - the error of a batch is that of its requests, and not of the next batch
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():  # the request may have been cancelled
                future.set_result(answer)
