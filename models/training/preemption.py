"""SIGTERM: end after the step at hand, with everything saved."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

from infra.errors import PreemptedError

_AGAIN_S = 3.0  # torchrun passes a signal on to ranks that the sender may have reached too: that is still the first


class Preemption:
    """Whether this rank has been asked to end. A second request after some seconds ends it at once."""

    def __init__(self) -> None:
        self.requested = False
        self._first_at = 0.0
        signal.signal(signal.SIGTERM, self._asked)

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested and now - self._first_at > _AGAIN_S:
            os._exit(PreemptedError.exit_code)
        if not self.requested:
            self.request()
            sys.stderr.write("SIGTERM: saving after this step; once more ends at once\n")

    def request(self) -> None:
        """Asks, as a first signal does: another rank got one."""
        self._first_at = time.monotonic()
        self.requested = True

    def saved(self) -> None:
        """All is saved: a signal from now on, as torchrun sends when another rank has ended, changes nothing."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
