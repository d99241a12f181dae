"""Runs torchrun on behalf of a supervisor and leaves no process behind, whichever of the two dies first.

Started as a plain script (``python -S -E guard.py DEATH_FD LOCK LOG GRACE_S COMMAND ...``), so it may import
only the standard library. It

- holds an exclusive lock on LOCK while the job runs: one job per run folder, and a way to detect that it runs;
- adopts orphaned grandchildren (torchrun starts each rank in a new session);
- keeps the log of the previous start as ``log.1.txt``;
- empties the folder ``scratch`` beside LOCK, which holds temporary files of torchrun and the ranks, before the
  command, because killed processes leave such files, and after it;
- stops all processes when the supervisor dies (the pipe DEATH_FD reaches its end), on SIGTERM, and after the command;
- kills the command when it is killed itself, because the lock is then free and a second job may start.

Exit code: that of the command, 128 + N for signal N, ``ALREADY_RUNNING`` if the lock is held.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time

ALREADY_RUNNING = 97
SCRATCH = "scratch"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(argv: list[str]) -> int:
    """Runs the command, supervised as described in the module docstring."""
    death_fd, lock_path, log_path, grace_s, command = int(argv[0]), argv[1], argv[2], float(argv[3]), argv[4:]
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ALREADY_RUNNING
    folder = os.path.dirname(lock_path)  # noqa: PTH120 - pathlib costs a third of the start-up time
    _empty(os.path.join(folder, SCRATCH))  # noqa: PTH118
    with contextlib.suppress(FileNotFoundError):
        os.replace(log_path, os.path.join(folder, "log.1.txt"))  # noqa: PTH105, PTH118
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    stop_read, stop_write = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(stop_write, b"x"))
    with open(log_path, "ab", buffering=0) as log:  # noqa: PTH123
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    code = _wait(child, [death_fd, stop_read], grace_s)
    _kill_all()
    _empty(os.path.join(folder, SCRATCH))  # noqa: PTH118
    return code if code >= 0 else 128 - code


def _empty(folder: str) -> None:
    if os.path.exists(folder):  # noqa: PTH110
        import shutil  # costs half of the start-up time, and is rarely needed before the command

        shutil.rmtree(folder, ignore_errors=True)


def prctl(option: int, value: int) -> None:
    """Sets an option of this process by Linux' ``prctl``; does nothing on other systems."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _wait(child: subprocess.Popen[bytes], stops: list[int], grace_s: float) -> int:
    """Waits for the command; on a stop request, terminates it and kills it after ``grace_s`` seconds."""
    deadline = None
    requests = select.poll()  # not select.select, which takes no descriptor above 1023: they are the supervisor's
    for stop in stops:
        requests.register(stop, select.POLLIN)
    while child.poll() is None:
        if deadline is None and requests.poll(50):
            child.terminate()
            deadline = time.monotonic() + grace_s
        elif deadline is not None:
            if time.monotonic() > deadline:
                child.kill()
            time.sleep(0.05)
    return child.returncode


def _kill_all() -> None:
    """Kills all remaining descendants; as a subreaper, the guard is the parent of every orphan."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (children := _children()):
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # not Linux: torchrun's own shutdown must suffice
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
