"""Detects a rank that makes no progress, saves the stacks of all ranks, and ends the job so that it can restart.

A watchdog thread runs on every rank. The main thread reports its phase and beats at every step; each phase has its own
time limit. A second thread exchanges the ranks' states through the agent's store, twice a second; only this thread
blocks if that store's machine has stopped. A rank that exceeds its limit may only be waiting for another one: the
stacks of ranks that neither wait nor answer show which rank blocks the others. A rank on the same machine that has
stopped entirely (SIGSTOP, a deadlock below Python) is made to write its stacks by a signal, then killed, since torchrun
would wait half a minute for it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import Store

from conf.schema import Runtime
from infra import store
from infra.errors import EffnetError, HungError
from infra.launch.command import JOB_FOLDER
from infra.launch.guard import SCRATCH
from models.training.distributed import Ranks, job_store
from models.training.supervision.preemption import Preemption

log = logging.getLogger("effnet")
TICK_S = 0.5
SILENT_S = 4.0  # a rank whose watchdog has been silent for this long counts as stopped
END_S = 30.0  # for saving stacks and cause, even if the object store does not answer
_STACK_SIGNAL = signal.SIGUSR1
_STOP_KEY = "stop"


def _scratch_folder() -> Path | None:
    """Returns the job's scratch folder, emptied by its guard; None (the system's default) without a guard."""
    if JOB_FOLDER not in os.environ:
        return None
    (folder := Path(os.environ[JOB_FOLDER], SCRATCH)).mkdir(exist_ok=True)
    return folder


class Watchdog:
    """The watchdog of one rank. Methods called by the main thread only assign attributes.

    Args:
        job_uri: The run folder; stacks are written to ``stacks/``.
        ranks: Position of this process in the job.
        runtime: Runtime configuration with the time limits.
        preemption: Also set when termination was requested on another rank, so that no rank waits for it in vain.
        on_hang: Called with the error before the process ends.
    """

    def __init__(
        self, job_uri: str, ranks: Ranks, runtime: Runtime, preemption: Preemption, on_hang: Callable[[HungError], None]
    ) -> None:
        self.job_uri, self.ranks, self.preemption, self.on_hang = job_uri, ranks, preemption, on_hang
        self.limits = {
            "start": runtime.first_step_timeout_s,
            "step": runtime.step_timeout_s,
            "eval": runtime.eval_timeout_s,
            "checkpoint": runtime.checkpoint_timeout_s,
        }
        self._phase = ("start", time.monotonic())  # and its last sign of life: one object, read by another thread
        self._waiting = False
        self._writing: tuple[int, float] | None = None
        self._closed = threading.Event()
        self._store = job_store("watchdog") if ranks.world_size > 1 else None
        self._states: dict[int, dict[str, Any]] = {}  # last received state of every other rank
        self._seen: dict[int, tuple[int, float]] = {}  # per rank: last count, and when it arrived
        self._heard_at = time.monotonic()  # last answer of the agent's store
        descriptor, self._stacks = tempfile.mkstemp(prefix="effnet-stacks-", suffix=".txt", dir=_scratch_folder())
        self._file = os.fdopen(descriptor, "w")
        faulthandler.register(_STACK_SIGNAL, file=self._file, all_threads=True)
        self._threads = [threading.Thread(target=self._watch, name="watchdog", daemon=True)]
        if self._store is not None:
            self._threads.append(threading.Thread(target=self._exchange_states, name="watchdog-exchange", daemon=True))
        for thread in self._threads:
            thread.start()

    def enter(self, phase: str) -> None:
        """Records that the main thread begins a phase: start, step, eval or checkpoint."""
        self._phase = (phase, time.monotonic())

    def beat(self) -> None:
        """Records that the main thread has finished a step or an evaluation batch."""
        self._phase = (self._phase[0], time.monotonic())

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks this rank as waiting for other ranks within the block."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def writing(self, step: int | None) -> None:
        """Records that the writer thread begins the checkpoint of ``step``, or has finished it (None)."""
        self._writing = None if step is None else (step, time.monotonic())

    def close(self) -> None:
        """Stops the threads and removes the stack file."""
        self._closed.set()
        for thread in self._threads:
            thread.join(SILENT_S)
        faulthandler.unregister(_STACK_SIGNAL)
        self._file.close()
        Path(self._stacks).unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self._closed.wait(TICK_S):
            reason = self._find_timeout()
            if reason is not None and not self._closed.is_set():
                self._end(reason)

    def _exchange_states(self) -> None:
        assert self._store is not None  # noqa: S101 - without a store this thread is not started
        for count in range(sys.maxsize):
            if self._closed.wait(TICK_S):
                return
            with contextlib.suppress(RuntimeError):  # the store's host is gone; the agent ends this rank
                self._exchange(self._store, count)
                self._heard_at = time.monotonic()

    def _exchange(self, agent: Store, count: int) -> None:
        if self.preemption.requested:
            agent.set(_STOP_KEY, "1")
        elif agent.check([_STOP_KEY]):
            self.preemption.request()
        state = {
            "count": count,
            "phase": self._phase[0],
            "waiting": self._waiting,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "stacks": self._stacks,
        }
        agent.set(f"rank_{self.ranks.rank}", json.dumps(state))
        for rank in range(self.ranks.world_size):
            if rank != self.ranks.rank and agent.check([f"rank_{rank}"]):
                other = self._states[rank] = json.loads(agent.get(f"rank_{rank}"))
                if self._seen.get(rank, (-1, 0.0))[0] != other["count"]:
                    self._seen[rank] = (other["count"], time.monotonic())

    def _find_timeout(self) -> str | None:
        now = time.monotonic()
        phase, since = self._phase
        if now - since > (limit := self.limits[phase]):
            key = "first_step" if phase == "start" else phase
            return f"no progress in phase {phase} for {limit:g} s (runtime.{key}_timeout_s)"
        writing, limit = self._writing, self.limits["checkpoint"]
        if writing is not None and now - writing[1] > limit:
            return f"the checkpoint of step {writing[0]} took longer than {limit:g} s (runtime.checkpoint_timeout_s)"
        return None

    def _end(self, reason: str) -> None:
        """Saves the stacks, reports the ranks that did not answer or were not waiting, and exits."""
        deadline = threading.Timer(END_S, os._exit, (HungError.exit_code,))
        deadline.daemon = True
        deadline.start()
        rank = self.ranks.rank
        faulthandler.dump_traceback(self._file, all_threads=True)
        self._save_stacks(rank, self._stacks)
        silent, busy = [], []
        stopped: list[tuple[int, dict[str, Any]]] = []
        now = time.monotonic()
        store_silent = self._store is not None and now - self._heard_at > SILENT_S  # no state is current then
        for other, state in [] if store_silent else list(self._states.items()):
            if now - self._seen[other][1] > SILENT_S:
                silent.append(other)
                if state["host"] == socket.gethostname():
                    stopped.append((other, state))
            elif not state["waiting"]:
                busy.append(other)
        culprits = (
            "".join(
                f"; {label} rank{'s' * (len(members) > 1)} {', '.join(map(str, members))}"
                for label, members in (("stopped:", silent), ("busy elsewhere:", busy))
                if members
            )
            + "; torchrun's store does not answer" * store_silent
        )
        error = HungError(f"rank {rank}: {reason}{culprits}; stacks in {store.join(self.job_uri, 'stacks')}")
        sys.stderr.write(f"{error}\n")
        self.on_hang(error)  # before a stopped rank is resumed for its stacks: it is late too, without a cause
        for other, state in stopped:
            self._collect_stacks(other, state)
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], signal.SIGKILL)
        os._exit(HungError.exit_code)

    def _collect_stacks(self, rank: int, state: dict[str, Any]) -> None:
        """Makes a stopped rank on this machine write its stacks, and saves them."""
        path = Path(state["stacks"])
        with contextlib.suppress(OSError):
            os.kill(state["pid"], _STACK_SIGNAL)
            os.kill(state["pid"], signal.SIGCONT)
            deadline = time.monotonic() + 2
            while not path.stat().st_size and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)  # for the rest of the file
        self._save_stacks(rank, str(path))  # also if the rank has ended meanwhile: its file remains

    def _save_stacks(self, rank: int, path: str) -> None:
        with contextlib.suppress(EffnetError, OSError):
            store.write(store.join(self.job_uri, "stacks", f"rank-{rank}.txt"), Path(path).read_bytes())
