"""Logs how far a long step has come, at intervals; a short step logs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from conf.text import format_duration, logger

EVERY_S = 15.0
T = TypeVar("T")
log = logger()


class Progress:
    """Counts the items of a step.

    Args:
        what: What is counted, in the plural, with what has become of it: ``images of pets read``.
        total: Number of items; None where nobody knows it.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self.what, self.total, self.done = what, total, 0
        self._began = self._said = time.monotonic()

    def add(self, number: int = 1) -> None:
        """Counts items that are done; only one thread may call it at a time."""
        self.done += number
        now = time.monotonic()
        if now - self._said < EVERY_S or self.done == self.total:
            return
        self._said = now
        if self.total is None:
            log.info("%s %s", f"{self.done:,}", self.what)
            return
        left = (now - self._began) / self.done * (self.total - self.done) if self.done else 0.0
        log.info("%s of %s %s, %s left", f"{self.done:,}", f"{self.total:,}", self.what, format_duration(left))

    def count(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items, and counts them."""
        for item in items:
            yield item
            self.add()
