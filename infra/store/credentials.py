"""Limits the rate of S3 calls while the store rejects the credentials as expired."""

from __future__ import annotations

import threading
import time

PERIOD_S = 1.0


class CredentialBackoff:
    """Throttles S3 calls to one per second per process after the store rejects the credentials, until a call succeeds.

    A *generation* is the set of credentials that one query of the provider chain returned. A rejection queries the
    chain again, because a shared credentials file may have been rotated in the meantime.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._generation = 0
        self._refused = False
        self._next_try = 0.0

    def take(self) -> int:
        """Waits until this call may proceed; returns the generation of credentials to use."""
        with self._changed:
            while self._refused and (wait_s := self._next_try - time.monotonic()) > 0:
                self._changed.wait(wait_s)
            if self._refused:
                self._next_try = time.monotonic() + PERIOD_S
            return self._generation

    def refused(self, generation: int) -> None:
        """Records that the store rejected this generation as expired."""
        with self._changed:
            if generation == self._generation:  # concurrent calls are rejected together
                self._generation += 1
                self._refused = True
                self._next_try = time.monotonic() + PERIOD_S

    def accepted(self, generation: int) -> None:
        """Records that the store accepted this generation; all calls may proceed again."""
        with self._changed:
            if generation == self._generation and self._refused:
                self._refused = False
                self._changed.notify_all()
