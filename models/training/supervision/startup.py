"""Breakdown of the time from process start to the first step."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

log = logging.getLogger("effnet")


class Startup:
    """Consecutive phases of the startup; the first begins with the process."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}  # seconds
        self.began = self._last = _process_start()  # unix time
        self.over = False

    def done(self, part: str) -> None:
        """Records the end of a phase."""
        now = time.time()
        self.parts[part] = round(now - self._last, 3)
        self._last = now

    def finish(self) -> dict[str, float]:
        """Records the end of the first step; logs and returns the seconds per phase."""
        self.done("first step")
        self.over = True
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.parts.items())
        log.info("first step after %.1f s: %s", sum(self.parts.values()), parts)
        return self.parts


def _process_start() -> float:
    """Returns the Unix time of this process's start; the current time if the system does not report it."""
    try:
        ticks = int(
            Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )  # field 22, starttime
        up = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return time.time() - (up - ticks / os.sysconf("SC_CLK_TCK"))
    except OSError:
        return time.time()
