"""SIGTERM handling: finish the current step, save everything and exit."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

from infra.errors import PreemptedError

_DUPLICATE_S = 3.0  # torchrun forwards a signal that the sender may also have sent to the ranks: the same request


class Preemption:
    """Whether termination of this rank was requested. A second SIGTERM after a few seconds exits immediately."""

    def __init__(self) -> None:
        self.requested = False
        self._signalled_at: float | None = None
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled_at is not None and now - self._signalled_at > _DUPLICATE_S:
            os._exit(PreemptedError.exit_code)
        if self._signalled_at is None:
            self._signalled_at, self.requested = now, True
            sys.stderr.write("SIGTERM: saving after this step; a second SIGTERM exits immediately\n")

    def request(self) -> None:
        """Records a request made on another rank. A later signal to this rank still counts as its first."""
        self.requested = True

    def saved(self) -> None:
        """Ignores signals from now on, as everything is saved; torchrun sends one when another rank has ended."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
