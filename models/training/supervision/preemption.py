"""SIGTERM: end after the step at hand, with everything saved."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

from infra.errors import PreemptedError

_AGAIN_S = 3.0  # torchrun passes a signal on to ranks that the sender may have reached too: that is still the same


class Preemption:
    """Whether this rank has been asked to end. A second signal after some seconds ends it at once."""

    def __init__(self) -> None:
        self.requested = False
        self._signalled_at: float | None = None
        signal.signal(signal.SIGTERM, self._asked)

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled_at is not None and now - self._signalled_at > _AGAIN_S:
            os._exit(PreemptedError.exit_code)
        if self._signalled_at is None:
            self._signalled_at, self.requested = now, True
            sys.stderr.write("SIGTERM: saving after this step; once more ends at once\n")

    def request(self) -> None:
        """Another rank was asked. This one's own signal, which its machine may send later, is still the first."""
        self.requested = True

    def saved(self) -> None:
        """All is saved: a signal from now on, as torchrun sends when another rank has ended, changes nothing."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
