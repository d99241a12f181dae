"""Prefetches shards to local disk in reading order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from infra.errors import EffnetError
from models.data.loading.cache import ShardCache
from models.data.loading.fetch import StoppedError
from models.data.shards.manifest import Shard

log = logging.getLogger("effnet")
AHEAD_BYTES = 2 * 2**30  # budget for shards that no batch needs yet
SHARDS_AT_ONCE = 2


class Prefetcher:
    """Fetches the shards of upcoming steps in the background.

    Args:
        cache: Cache that receives the shards.
        uses: (first step that reads it, shard), ordered by step.
        budget_bytes: Maximum size of shards fetched ahead of the reader.
    """

    def __init__(self, cache: ShardCache, uses: Sequence[tuple[int, Shard]], budget_bytes: int) -> None:
        self.cache = cache
        self.uses = uses
        self.budget_bytes = budget_bytes
        self._next = self._needed = 0  # how many of ``uses`` were started; how many the reader has reached
        self._early_bytes = 0  # size of those started that the reader has not reached
        self._step = -1
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, name=f"ahead-{i}") for i in range(SHARDS_AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def advance(self, step: int) -> None:
        """Reports that the reader is about to read this step."""
        with self._changed:
            self._step = step
            while self._needed < len(self.uses) and self.uses[self._needed][0] <= step:
                if self._needed < self._next:
                    self._early_bytes -= self.uses[self._needed][1].bytes
                self._needed += 1
                self.cache.requests += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Starts no further fetches. Returns immediately: running fetches may be waiting for an unavailable store."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def is_alive(self) -> bool:
        """Whether a fetch may still be running."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Waits for running fetches; closing the cache aborts them."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (shard := self._take()) is not None:
            try:
                self.cache.ensure(shard)
            except (EffnetError, StoppedError) as error:
                # The reader requests the shard itself and reports the same error.
                log.debug("%s was not fetched ahead: %s", shard.name, error)
                return

    def _take(self) -> Shard | None:
        """Returns the next shard once the budget permits; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next == len(self.uses) or self._is_within_budget())
            if self._closed or self._next == len(self.uses):
                return None
            step, shard = self.uses[self._next]
            self._next += 1
            if step > self._step:
                self._early_bytes += shard.bytes
            return shard

    def _is_within_budget(self) -> bool:
        step, shard = self.uses[self._next]
        # At least one, however small the budget.
        return step <= self._step or self._early_bytes == 0 or self._early_bytes + shard.bytes <= self.budget_bytes
