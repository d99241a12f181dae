"""Shards are brought to this machine before their reader needs them, in the order in which it will."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from infra.errors import EffnetError
from models.data.loading.cache import ShardCache
from models.data.loading.fetch import StoppedError
from models.data.shards.manifest import Shard

log = logging.getLogger("effnet")
AHEAD_BYTES = 2 * 2**30  # of shards that no batch has asked for yet
SHARDS_AT_ONCE = 2


class Prefetcher:
    """Fetches in the background what a run of steps will read.

    Args:
        cache: gets the shards.
        uses: (first step that reads it, shard), by step.
        budget_bytes: most that may be fetched before its time.
    """

    def __init__(self, cache: ShardCache, uses: Sequence[tuple[int, Shard]], budget_bytes: int) -> None:
        self.cache = cache
        self.uses = uses
        self.budget_bytes = budget_bytes
        self._next = self._needed = 0  # how many of ``uses`` were taken up; how many the reader has come to
        self._early_bytes = 0  # of those taken up that the reader has not come to
        self._step = -1
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, name=f"ahead-{i}") for i in range(SHARDS_AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def advance(self, step: int) -> None:
        """Tells that the reader is about to read this step."""
        with self._changed:
            self._step = step
            while self._needed < len(self.uses) and self.uses[self._needed][0] <= step:
                if self._needed < self._next:
                    self._early_bytes -= self.uses[self._needed][1].bytes
                self._needed += 1
                self.cache.asked += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Takes up nothing more; returns at once, because what is under way may be waiting for a store that is gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def is_alive(self) -> bool:
        """Whether anything may still be under way."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Returns when what was under way is done; closing the cache cuts it short."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (shard := self._take()) is not None:
            try:
                self.cache.ensure(shard)
            except (EffnetError, StoppedError) as error:
                # The reader asks for the shard itself and meets the same; there it is told.
                log.debug("%s was not fetched ahead: %s", shard.name, error)
                return

    def _take(self) -> Shard | None:
        """The next shard, when its time has come; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next == len(self.uses) or self._may_take())
            if self._closed or self._next == len(self.uses):
                return None
            step, shard = self.uses[self._next]
            self._next += 1
            if step > self._step:
                self._early_bytes += shard.bytes
            return shard

    def _may_take(self) -> bool:
        step, shard = self.uses[self._next]
        # One at least, however small the budget is.
        return step <= self._step or self._early_bytes == 0 or self._early_bytes + shard.bytes <= self.budget_bytes
