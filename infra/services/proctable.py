"""Reads the process table: from /proc if it exists, otherwise from `ps`.

Not psutil: its ``create_time()`` adds the boot time of the wall clock, so after a correction of the clock a recorded
process would look like another one and be started twice. The ticks since boot, together with the id of that boot, do
not change; psutil has them only under a private name.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_PROC = Path("/proc")
_DEAD = "ZX"


def has_proc() -> bool:
    """Whether this system has Linux's /proc."""
    return (_PROC / "self/stat").exists()


def born(pid: int) -> str | None:
    """Returns the start time of the process as text, unique among processes with this id; None if it is dead."""
    if has_proc():
        fields = _read_stat(pid)
        if not fields or fields[0] in _DEAD:
            return None
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {fields[19]}"  # clock ticks since that boot
    listing = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, started = listing.stdout.strip().partition(" ")
    return started.strip() if started and state[0] not in _DEAD else None


def living() -> dict[int, int]:
    """Returns the process group of every living process, by process id."""
    if has_proc():
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
        stats = {pid: _read_stat(pid) for pid in pids}
        return {pid: int(fields[2]) for pid, fields in stats.items() if fields and fields[0] not in _DEAD}
    listing = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True)
    rows = [line.split() for line in listing.stdout.splitlines()]
    return {int(pid): int(group) for pid, group, state in rows if state[0] not in _DEAD}


def environment(pid: int) -> list[bytes]:
    """Returns the ``NAME=value`` pairs that the process started with; empty if they cannot be read."""
    return _read_null_separated(pid, "environ")


def command_line(pid: int) -> list[bytes]:
    """Returns the arguments of the process; empty if they cannot be read."""
    return _read_null_separated(pid, "cmdline")


def _read_null_separated(pid: int, file: str) -> list[bytes]:
    try:
        return (_PROC / str(pid) / file).read_bytes().split(b"\0")
    except OSError:
        return []


def _read_stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat after the program's name: state, ppid, pgrp, ...; empty if it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
