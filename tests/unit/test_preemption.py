"""SIGTERM, the first time and again; in processes of their own, which it may end."""

from __future__ import annotations

import subprocess
import sys

SIGNALLED = """
import os, signal, sys
from models.training.preemption import Preemption
asked = Preemption()
{before}
os.kill(os.getpid(), signal.SIGTERM)
print("alive", asked.requested)
"""


def after_sigterm(before: str) -> tuple[int, str]:
    """Exit code and output of a process that gets a SIGTERM after ``before``."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED.format(before=before)], capture_output=True, text=True)
    return done.returncode, done.stdout.strip()


def test_the_first_signal_only_asks() -> None:
    assert after_sigterm("") == (0, "alive True")


def test_the_signal_that_follows_another_rank_s_request_is_still_the_first() -> None:
    """Torchrun sends it to the ranks that are left as soon as one has saved and ended."""
    assert after_sigterm("asked.request()") == (0, "alive True")


def test_a_second_one_seconds_later_ends_at_once() -> None:
    assert after_sigterm("asked.request(); asked._first_at -= 4") == (8, "")


def test_once_all_is_saved_no_signal_ends_it() -> None:
    assert after_sigterm("asked.request(); asked._first_at -= 4; asked.saved()") == (0, "alive True")
