"""How long a job takes from its process's start to its first step, and what takes it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

log = logging.getLogger("effnet")


class Startup:
    """A row of parts, each from the end of the one before it; the first begins with the process."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}  # seconds
        self.began = self._last = _born()  # unix time
        self.over = False

    def done(self, part: str) -> None:
        """A part has ended."""
        now = time.time()
        self.parts[part] = round(now - self._last, 3)
        self._last = now

    def finish(self) -> dict[str, float]:
        """The first step has been made."""
        self.done("first step")
        self.over = True
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.parts.items())
        log.info("first step after %.1f s: %s", sum(self.parts.values()), parts)
        return self.parts


def _born() -> float:
    """Unix time of this process's start; now, where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # field 22, starttime
        up = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - (up - ticks / os.sysconf("SC_CLK_TCK"))
    except OSError:
        return time.time()
