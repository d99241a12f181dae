"""Ctrl-C, SIGTERM, a closed pipe, a full disk: ends what this command started, in order, in at most one line."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from types import FrameType
from typing import Any

from infra.errors import PreemptedError

INTERRUPTED = 130  # exit code of shells after Ctrl-C
OUTPUT_CLOSED = 141  # exit code of shells after SIGPIPE
OUTPUT_LOST = 74  # EX_IOERR of sysexits.h
_AGAIN_S = 3.0  # `timeout` and some schedulers send a signal to the process and to its group: count both as one
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal requested the end of this command.

    Args:
        number: Number of the signal.
        again: Whether it is the second one, after which nothing is waited for.
    """

    def __init__(self, number: int, *, again: bool = False) -> None:
        super().__init__(number)
        self.name, self.again = signal.Signals(number).name, again


def handle() -> None:
    """Makes SIGINT and SIGTERM raise ``Stopped`` in the main thread, also in a shell's background jobs."""
    first: list[float] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            raise Stopped(number)
        if time.monotonic() - first[0] > _AGAIN_S:
            raise Stopped(number, again=True)

    for number in _NUMBERS:
        signal.signal(number, stop)


@contextmanager
def deferred() -> Iterator[None]:
    """Ignores signals within the block, which must be short."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    for number in _NUMBERS:
        signal.signal(number, lambda *_: None)  # SIG_IGN would be inherited by child processes
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_flow(flow: Coroutine[Any, Any, Any]) -> Any:
    """Runs a flow to its end, or, after a signal, until it has ended what it started.

    It runs in a separate thread: in the main thread Prefect would replace the SIGTERM handler by one that raises at
    any point of the program, even in callbacks where asyncio swallows it.

    Raises:
        Stopped: A signal arrived. After a second one the flow still runs; its guards end its jobs with this process.
    """
    begin: SimpleQueue[None] = SimpleQueue()
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    ended: Future[Any] = Future()

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.run made one
        running.set_result((asyncio.get_running_loop(), task))
        return await flow

    def work() -> None:
        begin.get()
        try:
            ended.set_result(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - passed on to the main thread
            ended.set_exception(error)

    try:
        threading.Thread(target=work, name="flow", daemon=True).start()
    except Stopped:  # raised before or after the thread started, which still waits
        flow.close()
        raise
    try:
        begin.put(None)
        return ended.result()
    except Stopped as stop:
        sys.stderr.write(f"{stop.name}: ending what runs, which saves its state; once more does not wait for it\n")
        begin.put(None)  # the signal may arrive before the flow begins
        loop, task = running.result()
        with suppress(RuntimeError):  # the loop has just closed
            loop.call_soon_threadsafe(task.cancel)
        ended.exception()
        raise


def leave(stop: KeyboardInterrupt) -> int:
    """Prints the outcome of a signal in one line; returns the exit code, 8 if SIGTERM ended jobs that saved."""
    supervise = sys.modules.get("tasks.supervise")  # not imported: then no job ran
    jobs: dict[str, bool] = supervise.interrupted if supervise else {}
    name = getattr(stop, "name", "SIGINT")
    saved = bool(jobs) and all(jobs.values())
    if getattr(stop, "again", False):
        what = "a second time, so nothing was waited for; the same command resumes from what is saved"
    elif saved:
        what = f"the state of {', '.join(jobs)} is saved; the same command resumes"
    else:
        what = "what this command started has ended; the same command does what is missing"
    sys.stderr.write(f"stopped by {name}: {what}\n")
    code = PreemptedError.exit_code if saved and name == "SIGTERM" else INTERRUPTED
    if getattr(stop, "again", False):  # the interpreter would wait for the threads of the flow
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def leave_output(error: BrokenPipeError) -> int:
    """Ends without a word if the reader of the output has gone, as in ``effnet plan | head``; returns the exit code.

    SIGPIPE itself stays ignored, as Python sets it: it would also end a command whose service closed a connection.

    Raises:
        BrokenPipeError: ``error``, if it was not the output that was closed.
    """
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes what is left
    return OUTPUT_CLOSED


def report_lost_output(error: OSError) -> int:
    """Prints in one line that the output cannot be written, as on a full disk; returns the exit code.

    Raises:
        OSError: ``error``, if standard output can be written.
    """
    try:
        os.write(1, b"\n")  # an error has no name of its file, and any file may be full
    except OSError as again:
        sys.stderr.write(f"error: the output cannot be written: {again.strerror}; the work itself may be done\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes what is left
        return OUTPUT_LOST
    raise error
