"""Starting, recognising and stopping the service processes; a number in a file is never trusted alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from infra import files
from infra.errors import ConfigError

_MARK = "EFFNET_SERVICES"  # in the environment of all that we start: the folder it belongs to
_GRACE_S = 15.0  # weed stops within 2-4 s, Prefect within 5 s on a quiet machine
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}  # ours to reap: unreaped, the dead would look alive


@dataclass(frozen=True)
class Program:
    """What to start: a name for its files, the command, its whole environment, its working folder."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path


@dataclass(frozen=True)
class Handle:
    """A started process. ``born`` tells it from a later one with the same number."""

    pid: int
    born: str


def log_path(folder: Path, name: str) -> Path:
    """Where the service writes; the file of the start before has the suffix ``.1``."""
    return folder / "logs" / f"{name}.log"


def log_tail(folder: Path, name: str, lines: int = 12) -> str:
    """The last lines of the service's log."""
    path = log_path(folder, name)
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def start(folder: Path, program: Program) -> Handle:
    """Starts ``program`` in its own session, with its own log file and no pipe to us, and notes it down.

    Raises:
        ConfigError: the program does not exist.
    """
    log = log_path(folder, program.name)
    log.parent.mkdir(exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    program.cwd.mkdir(parents=True, exist_ok=True)
    env = {**program.env, _MARK: str(folder)}
    try:
        with log.open("wb") as output:
            child = subprocess.Popen(
                program.argv, env=env, cwd=program.cwd, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"cannot start {program.argv[0]}: {error.strerror}") from error
    _CHILDREN[child.pid] = child
    handle = Handle(child.pid, _born(child.pid) or "dead at once")
    files.write(_note(folder, program.name), json.dumps(asdict(handle)).encode())
    return handle


def running(folder: Path, name: str) -> Handle | None:
    """The noted process of this service, when it lives and is still the same."""
    try:
        handle = Handle(**json.loads(_note(folder, name).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return handle if is_alive(handle) else None


def is_alive(handle: Handle) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    if child := _CHILDREN.get(handle.pid):
        child.poll()
    return _born(handle.pid) == handle.born


def stop(folder: Path, names: Collection[str]) -> list[str]:
    """Ends these services: SIGTERM to each whole group, SIGKILL to what is left after the grace.

    Returns:
        The names of those that ran.
    """
    groups = {name: group for name in names if (group := _group(folder, name))}
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 5.0)):
        for group in groups.values():
            if _members(group):
                with suppress(ProcessLookupError):
                    os.killpg(group, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and any(_members(group) for group in groups.values()):
            time.sleep(0.05)
    for name in names:
        _note(folder, name).unlink(missing_ok=True)
    return list(groups)


def _group(folder: Path, name: str) -> int | None:
    """The process group of this service, when anything in it is surely ours."""
    try:
        handle = Handle(**json.loads(_note(folder, name).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    if is_alive(handle):
        return handle.pid
    # The leader died; its children may live on. The mark tells them from strangers with a reused number.
    mark = f"{_MARK}={folder}".encode()
    return handle.pid if any(mark in _environment(pid) for pid in _members(handle.pid)) else None


def _note(folder: Path, name: str) -> Path:
    return folder / f"{name}.process.json"


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name: state, ppid, pgrp, ... ; empty when gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _born(pid: int) -> str | None:
    """When the process started, as text; None when there is none or only a zombie."""
    if Path("/proc/self/stat").exists():
        fields = _stat(pid)
        if not fields or fields[0] in "ZX":
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {fields[19]}"  # clock ticks since boot
    asked = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, started = asked.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def _members(group: int) -> list[int]:
    """The living processes of a group."""
    for child in _CHILDREN.values():
        child.poll()
    if Path("/proc/self/stat").exists():
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        stats = ((pid, _stat(pid)) for pid in pids)
        return [pid for pid, fields in stats if fields and fields[2] == str(group) and fields[0] not in "ZX"]
    asked = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True)
    rows = [line.split() for line in asked.stdout.splitlines()]
    return [int(pid) for pid, pgid, state in rows if pgid == str(group) and not state.startswith("Z")]
