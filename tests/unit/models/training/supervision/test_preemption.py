"""SIGTERM, the first time and again; in processes of their own, which it may end."""

from __future__ import annotations

import subprocess
import sys

SIGNAL = "os.kill(os.getpid(), signal.SIGTERM)"
SIGNALLED = """
import os, signal, sys
from models.training.supervision.preemption import Preemption
preemption = Preemption()
{before}
os.kill(os.getpid(), signal.SIGTERM)
print("alive", preemption.requested)
"""


LATER = "import time; now = time.monotonic; preemption.request(); time.monotonic = lambda: now() + 4"


def after_sigterm(before: str) -> tuple[int, str]:
    """Exit code and output of a process that gets a SIGTERM after ``before``."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED.format(before=before)], capture_output=True, text=True)
    return done.returncode, done.stdout.strip()


def test_the_first_signal_only_asks() -> None:
    assert after_sigterm("") == (0, "alive True")


def test_the_signal_that_follows_another_rank_s_request_is_still_the_first() -> None:
    """Machines are preemption one after another, and torchrun asks the ranks that are left when one has ended."""
    assert after_sigterm(LATER) == (0, "alive True")


def test_a_second_one_seconds_later_ends_at_once() -> None:
    assert after_sigterm(f"{SIGNAL}; preemption._signalled_at -= 4") == (8, "")


def test_once_all_is_saved_no_signal_ends_it() -> None:
    assert after_sigterm(f"{SIGNAL}; preemption._signalled_at -= 4; preemption.saved()") == (0, "alive True")
