"""Starts, identifies and stops the service processes; a recorded process id alone is never trusted."""

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

from infra.errors import ConfigError
from infra.services import proctable
from infra.store import files

_MARK = "EFFNET_SERVICE"  # in the environment of every started process: service and folder
_GRACE_S = 15.0  # weed stops within 2-4 s, Prefect within 5 s on a quiet machine
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}  # children to reap: unreaped zombies would look alive


@dataclass(frozen=True)
class Program:
    """A program to start: name for its files, command, complete environment and working folder."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path


@dataclass(frozen=True)
class Handle:
    """A started process. ``born`` distinguishes it from a later process with the same id."""

    pid: int
    born: str


def log_path(folder: Path, name: str) -> Path:
    """Returns the log file of the service; that of the previous start has the suffix ``.1``."""
    return folder / "logs" / f"{name}.log"


def log_tail(folder: Path, name: str, lines: int = 12) -> str:
    """Returns the last lines of the service's log."""
    path = log_path(folder, name)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def start(folder: Path, program: Program) -> Handle:
    """Starts ``program`` in a new session, with a log file instead of a pipe, and records its process.

    Raises:
        ConfigError: The program does not exist.
    """
    log = log_path(folder, program.name)
    log.parent.mkdir(exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    program.cwd.mkdir(parents=True, exist_ok=True)
    env = {**program.env, _MARK: f"{program.name}@{folder}"}
    try:
        with log.open("wb") as output:
            child = subprocess.Popen(
                program.argv,
                env=env,
                cwd=program.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise ConfigError(f"cannot start {program.argv[0]}: {error.strerror}") from error
    _CHILDREN[child.pid] = child
    handle = Handle(child.pid, proctable.born(child.pid) or "already dead")
    files.write(_record_path(folder, program.name), json.dumps(asdict(handle)).encode())
    return handle


def running(folder: Path, name: str) -> Handle | None:
    """Returns the recorded process of this service if it is alive and still the same."""
    handle = _read_record(folder, name)
    return handle if handle and is_alive(handle) else None


def is_alive(handle: Handle) -> bool:
    """Whether this exact process is still running (a zombie is not)."""
    if child := _CHILDREN.get(handle.pid):
        child.poll()
    return proctable.born(handle.pid) == handle.born


def stop(folder: Path, names: Collection[str]) -> list[str]:
    """Stops these services and all their children: SIGTERM, then SIGKILL after the grace period.

    Returns:
        Names of the services of which any process was running.
    """
    groups = {name: _group(folder, name) for name in names}
    ran = [name for name in names if _members(folder, name, groups[name])]
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 5.0)):
        for name in ran:
            for pid in _members(folder, name, groups[name]):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and any(_members(folder, name, groups[name]) for name in ran):
            time.sleep(0.05)
    for name in names:
        _record_path(folder, name).unlink(missing_ok=True)
        # A process whose threads end one by one looks dead before it can be reaped.
        if child := _CHILDREN.pop(groups[name] or 0, None):
            with suppress(subprocess.TimeoutExpired):
                child.wait(1.0)
    return ran


def flow_runs(folder: Path, name: str) -> list[int]:
    """Returns the process ids of the flow runs of the worker with this name, whether or not it is alive."""
    return [pid for pid in proctable.living() if _is_flow_run(pid, folder, name)]


def _group(folder: Path, name: str) -> int | None:
    """Returns the process group of this service if a process in it certainly belongs to the service."""
    handle = _read_record(folder, name)
    if handle is None:
        return None
    if is_alive(handle):
        return handle.pid
    # The leader died; its children may be alive. The mark distinguishes them from processes with a reused id.
    orphans = [pid for pid, group in proctable.living().items() if group == handle.pid]
    return handle.pid if any(_is_marked(pid, folder, name) for pid in orphans) else None


def _members(folder: Path, name: str, group: int | None) -> list[int]:
    """Returns the ids of the living processes of a service."""
    for child in _CHILDREN.values():
        child.poll()
    # Prefect starts each flow run in a new session, so a killed worker leaves them behind. Their child processes
    # are not stopped here: the launcher does that, and the job of a cluster may outlive this process.
    return [
        pid
        for pid, process_group in proctable.living().items()
        if process_group == group or (name == "worker" and _is_flow_run(pid, folder, name))
    ]


def _is_flow_run(pid: int, folder: Path, name: str) -> bool:
    words = proctable.command_line(pid)
    return any(word.startswith(b"prefect") and word != b"prefect" for word in words) and _is_marked(pid, folder, name)


def _is_marked(pid: int, folder: Path, name: str) -> bool:
    return f"{_MARK}={name}@{folder}".encode() in proctable.environment(pid)


def _read_record(folder: Path, name: str) -> Handle | None:
    """Returns the process in the service's record; None if the record is missing or damaged."""
    try:
        handle = Handle(**json.loads(_record_path(folder, name).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return handle if type(handle.pid) is int and handle.pid > 1 and isinstance(handle.born, str) else None


def _record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.process.json"
