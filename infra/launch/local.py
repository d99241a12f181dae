"""Jobs as processes of this machine; every engine offers the same five functions.

``submit(spec)``, ``find(spec)`` (adopt what already runs), ``poll``, ``logs`` and ``cancel``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from infra.launch import guard
from infra.launch.command import JOB_FOLDER, inherited
from infra.store import files

GRACE_S = 30.0  # between asking a job to end and killing it: it saves its state first, in 20 s at most
LOG_TAIL_LINES = 25
_TORCHRUN_REPORT = re.compile(r"torch/distributed/elastic/.*(failed|Sending process)")


@dataclass(frozen=True)
class JobSpec:
    """What to run: a command, the variables it needs beside ours, and a folder for its lock and log."""

    key: str
    argv: list[str]
    env: dict[str, str]
    folder: Path

    @property
    def log_path(self) -> Path:
        """Where the job's output goes."""
        return self.folder / "log.txt"

    @property
    def lock_path(self) -> Path:
        """Locked as long as the job runs."""
        return self.folder / "lock"


@dataclass
class LocalJob:
    """A running job: our own child, or one that another supervisor started (``process`` is None)."""

    spec: JobSpec
    process: subprocess.Popen[bytes] | None = None
    death_fd: int | None = None  # closed by the kernel when we die; the guard then ends the job


def submit(spec: JobSpec) -> LocalJob:
    """Starts a job under its guard. It dies with this process, and with nothing else of ours."""
    with files.errors(spec.folder):
        files.make_private(spec.folder)
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-E",
                guard.__file__,
                str(read_end),
                str(spec.lock_path),
                str(spec.log_path),
                str(GRACE_S),
                *spec.argv,
            ],
            env={**inherited(os.environ), **spec.env, JOB_FOLDER: str(spec.folder)},
            umask=files.umask_in(spec.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us alone; we then end the job in order
            pass_fds=(read_end,),
        )
    finally:
        os.close(read_end)
    return LocalJob(spec, process, write_end)


def find(spec: JobSpec) -> LocalJob | None:
    """The job of this key if one runs already, whoever started it."""
    return LocalJob(spec) if _locked(spec.lock_path) else None


def poll(job: LocalJob) -> int | None:
    """None while it runs, then the exit code; 0 for an adopted job, whose truth is its status object.

    128 + N where a signal N ended the guard, torchrun, or the rank that failed first (``models/training/agent.py``).
    """
    if job.process is None:
        return None if _locked(job.spec.lock_path) else 0
    code = job.process.poll()
    return 128 - code if code is not None and code < 0 else code


def logs(job: LocalJob) -> str:
    """The last lines that the workers printed; torchrun's own report of their end, longer still, is cut."""
    lines = _log(job).splitlines()
    report = next((i for i, line in enumerate(lines) if _TORCHRUN_REPORT.search(line)), len(lines))
    return "\n".join(lines[:report][-LOG_TAIL_LINES:])


def _log(job: LocalJob) -> str:
    with contextlib.suppress(FileNotFoundError):
        return job.spec.log_path.read_text(errors="replace")
    return ""


def cancel(job: LocalJob) -> None:
    """Ends our own job and waits until all of its processes are gone; an adopted one is not ours to end."""
    if job.process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        job.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        job.process.wait(GRACE_S + 15)
    if job.death_fd is not None:
        os.close(job.death_fd)
        job.death_fd = None


def _locked(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
