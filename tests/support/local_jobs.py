"""Waiting for jobs on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

from infra.launch import local
from infra.launch.local import LocalJob


def until(what: Callable[[], object], seconds: float = 15) -> bool:
    """Whether something becomes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait(job: LocalJob, seconds: float = 15) -> int:
    """The exit code of a job, which ends within so many seconds."""
    assert until(lambda: local.poll(job) is not None, seconds)
    code = local.poll(job)
    assert code is not None
    return code
