"""What the system tells about processes: /proc where there is one, `ps` elsewhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PROC = Path("/proc")
_DEAD = "ZX"


def has_proc() -> bool:
    """Whether this system has Linux's /proc."""
    return (_PROC / "self/stat").exists()


def born(pid: int) -> str | None:
    """When the process started, as text that no other process with this number has; None when it is dead."""
    if has_proc():
        fields = _stat(pid)
        if not fields or fields[0] in _DEAD:
            return None
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {fields[19]}"  # clock ticks since that boot
    asked = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, started = asked.stdout.strip().partition(" ")
    return started.strip() if started and state[0] not in _DEAD else None


def living() -> dict[int, int]:
    """Process group of every living process, by process number."""
    if has_proc():
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
        stats = {pid: _stat(pid) for pid in pids}
        return {pid: int(fields[2]) for pid, fields in stats.items() if fields and fields[0] not in _DEAD}
    asked = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True)
    rows = [line.split() for line in asked.stdout.splitlines()]
    return {int(pid): int(group) for pid, group, state in rows if state[0] not in _DEAD}


def environment(pid: int) -> list[bytes]:
    """``NAME=value`` pairs that the process started with; none where the system does not tell."""
    return _zero_separated(pid, "environ")


def command_line(pid: int) -> list[bytes]:
    """The arguments of the process; none where the system does not tell."""
    return _zero_separated(pid, "cmdline")


def _zero_separated(pid: int, file: str) -> list[bytes]:
    try:
        return (_PROC / str(pid) / file).read_bytes().split(b"\0")
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name: state, ppid, pgrp, ... ; empty when gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
