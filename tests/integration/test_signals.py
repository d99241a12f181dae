"""Ctrl-C and SIGTERM sent to real processes that run a flow, or what stands for one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from matrix import with_slow_rest

COMMAND = """
import asyncio, gc, logging, sys, time
gc.disable()  # else it takes half of the time
from flows.cli import signals
from prefect.utilities.engine import capture_sigterm
import tasks.supervise

async def flow():
    with capture_sigterm():  # as the engine of every flow does
        print("runs", flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("ends", flush=True)
            tasks.supervise.interrupted.update({jobs})
            await asyncio.sleep({ending_s})
            print("ended", flush=True)

signals.handle()
try:
    signals.run_flow(flow())
except KeyboardInterrupt as stop:
    sys.exit(signals.leave(stop))
"""


def stopped(*numbers: int, jobs: str = "{}", ending_s: float = 0, pause_s: float = 0) -> tuple[int, list[str], str]:
    """Exit code, lines on stdout, and stderr of a command that gets these signals."""
    code = COMMAND.format(jobs=jobs, ending_s=ending_s)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "runs\n"
        for number in numbers:
            command.send_signal(number)
            time.sleep(pause_s)
        out, err = command.communicate(timeout=60)
    return command.returncode, out.splitlines(), err


ENDED, SAVED = "what this command started has ended", "the state of b0 is saved"


@pytest.mark.parametrize(
    ("numbers", "jobs", "code", "said"),
    with_slow_rest(
        [
            ([signal.SIGTERM], "{}", 130, f"stopped by SIGTERM: {ENDED}"),
            ([signal.SIGTERM], "{'b0': True}", 8, f"stopped by SIGTERM: {SAVED}; the same command resumes"),
            ([signal.SIGTERM], "{'b0': True, 'b1': False}", 130, f"stopped by SIGTERM: {ENDED}"),
            ([signal.SIGINT], "{'b0': True}", 130, f"stopped by SIGINT: {SAVED}; the same command resumes"),
            # GNU timeout sends its signal to the process and to its group: that is one request.
            ([signal.SIGTERM, signal.SIGTERM], "{'b0': True}", 8, f"stopped by SIGTERM: {SAVED}"),
        ],
        plain=2,
    ),
)
def test_a_signal_ends_the_flow_in_order_and_the_command_in_one_line(
    numbers: list[int], jobs: str, code: int, said: str
) -> None:
    ended, lines, err = stopped(*numbers, jobs=jobs, ending_s=0.3)
    assert (ended, lines) == (code, ["ends", "ended"]), err
    first, last = err.splitlines()
    assert first.endswith("ending what runs, which saves its state; once more does not wait for it")
    assert last.startswith(said)


def test_a_signal_while_the_thread_of_the_flow_starts_leaves_nothing_behind() -> None:
    """The flow had begun, and the command ended without ending it."""
    starts = """
import os, signal, threading, time
start = threading.Thread.start

def interrupted(self):
    start(self)
    if self.name == "flow":
        time.sleep(0.2)  # a flow that did not wait for the main thread would run by now
        os.kill(os.getpid(), signal.SIGTERM)

threading.Thread.start = interrupted
"""
    code = starts + COMMAND.format(jobs="{}", ending_s=0)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("stopped by SIGTERM: what this command started has ended")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_second_signal_seconds_later_waits_for_nothing() -> None:
    began = time.monotonic()
    ended, lines, err = stopped(
        signal.SIGTERM, signal.SIGTERM, ending_s=50, pause_s=6
    )  # a busy machine handles the first late
    assert time.monotonic() - began < 40
    assert (ended, lines) == (130, ["ends"])
    assert err.splitlines()[-1].startswith("stopped by SIGTERM: a second time, so nothing was waited for")
    assert "Traceback" not in err
