"""What a process does while the store refuses its credentials as expired: it asks again, but gently."""

from __future__ import annotations

import threading
import time

PERIOD_S = 1.0


class CredentialBackoff:
    """Lets calls pass; after a refusal one a second in the whole process, until one is accepted.

    A *generation* is a set of credentials as the provider chain gave them at one time. A refusal asks the chain
    anew, because a shared credentials file may have been rotated meanwhile.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._generation = 0
        self._refused = False
        self._next_try = 0.0

    def take(self) -> int:
        """Waits for this call's turn; returns the generation of credentials to use."""
        with self._changed:
            while self._refused and (wait_s := self._next_try - time.monotonic()) > 0:
                self._changed.wait(wait_s)
            if self._refused:
                self._next_try = time.monotonic() + PERIOD_S
            return self._generation

    def refused(self, generation: int) -> None:
        """Notes that the store called this generation expired."""
        with self._changed:
            if generation == self._generation:  # calls that were on the way together are refused together
                self._generation += 1
                self._refused = True
                self._next_try = time.monotonic() + PERIOD_S

    def accepted(self, generation: int) -> None:
        """Notes that the store took this generation; everybody may pass again."""
        with self._changed:
            if generation == self._generation and self._refused:
                self._refused = False
                self._changed.notify_all()
