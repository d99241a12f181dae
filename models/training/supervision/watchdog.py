"""Notices a rank that makes no progress, saves everybody's stacks, and ends the job so that it can start again.

A thread on every rank. The main thread says which phase it is in and beats at every step; each phase has its own
limit. A second thread tells all ranks' states to each other through the agent's store, twice a second; it alone waits
where that store's machine has stopped. When a rank runs out of time it may only be waiting for another one: the stacks
of those that neither wait nor answer show who holds up whom. A rank of the same machine that has stopped altogether
(SIGSTOP, a deadlock below Python) is made to write its stacks by a signal, then killed, since torchrun would wait half
a minute for it.
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
SILENT_S = 4.0  # without a word from its watchdog, a rank counts as stopped
END_S = 30.0  # for stacks and cause to be saved, also where the object store does not answer
_STACK_SIGNAL = signal.SIGUSR1
_STOP_KEY = "stop"


def _scratch() -> Path | None:
    """The job's own folder for such files, which its guard empties; None (the system's) in a rank without a guard."""
    if JOB_FOLDER not in os.environ:
        return None
    (folder := Path(os.environ[JOB_FOLDER], SCRATCH)).mkdir(exist_ok=True)
    return folder


class Watchdog:
    """One rank's. Everything that the main thread calls is an assignment.

    Args:
        job_uri: the run folder; stacks go to ``stacks/``.
        ranks: this process.
        runtime: the limits.
        preemption: also set when another rank was asked to end, so that none waits for it in vain.
        failed: told the error before the process ends.
    """

    def __init__(
        self, job_uri: str, ranks: Ranks, runtime: Runtime, preemption: Preemption, failed: Callable[[HungError], None]
    ) -> None:
        self.job_uri, self.ranks, self.preemption, self.failed = job_uri, ranks, preemption, failed
        self.limits = {
            "start": runtime.first_step_timeout_s,
            "step": runtime.step_timeout_s,
            "eval": runtime.eval_timeout_s,
            "checkpoint": runtime.checkpoint_timeout_s,
        }
        self._phase, self._since, self._waiting = "start", time.monotonic(), False
        self._writing: tuple[int, float] | None = None
        self._closed = threading.Event()
        self._store = job_store("watchdog") if ranks.world_size > 1 else None
        self._states: dict[int, dict[str, Any]] = {}  # of each other rank, as it last told it
        self._seen: dict[int, tuple[int, float]] = {}  # of each: its last count, and when it came
        self._heard_at = time.monotonic()  # from the agent's store
        descriptor, self._stacks = tempfile.mkstemp(prefix="effnet-stacks-", suffix=".txt", dir=_scratch())
        self._file = os.fdopen(descriptor, "w")
        faulthandler.register(_STACK_SIGNAL, file=self._file, all_threads=True)
        self._threads = [threading.Thread(target=self._watch, name="watchdog", daemon=True)]
        if self._store is not None:
            self._threads.append(threading.Thread(target=self._talk, name="watchdog-talk", daemon=True))
        for thread in self._threads:
            thread.start()

    def enter(self, phase: str) -> None:
        """The main thread begins a phase: start, step, eval or checkpoint."""
        self._phase, self._since = phase, time.monotonic()

    def beat(self) -> None:
        """The main thread has finished a step, or a batch of an evaluation."""
        self._since = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for other ranks."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def writing(self, step: int | None) -> None:
        """The writer's thread begins a checkpoint, or has ended it."""
        self._writing = None if step is None else (step, time.monotonic())

    def close(self) -> None:
        """Ends the threads."""
        self._closed.set()
        for thread in self._threads:
            thread.join(SILENT_S)
        faulthandler.unregister(_STACK_SIGNAL)
        self._file.close()
        Path(self._stacks).unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self._closed.wait(TICK_S):
            late = self._late()
            if late is not None and not self._closed.is_set():
                self._end(late)

    def _talk(self) -> None:
        assert self._store is not None  # noqa: S101 - else there is no such thread
        for count in range(sys.maxsize):
            if self._closed.wait(TICK_S):
                return
            with contextlib.suppress(RuntimeError):  # the store's host is gone; the agent ends us
                self._exchange(self._store, count)
                self._heard_at = time.monotonic()

    def _exchange(self, agent: Store, count: int) -> None:
        if self.preemption.requested:
            agent.set(_STOP_KEY, "1")
        elif agent.check([_STOP_KEY]):
            self.preemption.request()
        state = {
            "count": count,
            "phase": self._phase,
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

    def _late(self) -> str | None:
        now = time.monotonic()
        if now - self._since > (limit := self.limits[self._phase]):
            key = "first_step" if self._phase == "start" else self._phase
            return f"no progress in phase {self._phase} for {limit:g} s (runtime.{key}_timeout_s)"
        writing, limit = self._writing, self.limits["checkpoint"]
        if writing is not None and now - writing[1] > limit:
            return f"the checkpoint of step {writing[0]} took longer than {limit:g} s (runtime.checkpoint_timeout_s)"
        return None

    def _end(self, late: str) -> None:
        """Saves the stacks, names who did not answer or did not wait, and leaves."""
        last = threading.Timer(END_S, os._exit, (HungError.exit_code,))
        last.daemon = True
        last.start()
        rank = self.ranks.rank
        faulthandler.dump_traceback(self._file, all_threads=True)
        self._save_stacks(rank, self._stacks)
        silent, busy = [], []
        stopped: list[tuple[int, dict[str, Any]]] = []
        now = time.monotonic()
        deaf = self._store is not None and now - self._heard_at > SILENT_S  # then nothing is known of anybody
        for other, state in [] if deaf else list(self._states.items()):
            if now - self._seen[other][1] > SILENT_S:
                silent.append(other)
                if state["host"] == socket.gethostname():
                    stopped.append((other, state))
            elif not state["waiting"]:
                busy.append(other)
        whom = (
            "".join(
                f"; {what} rank{'s' * (len(who) > 1)} {', '.join(map(str, who))}"
                for what, who in (("stopped:", silent), ("busy elsewhere:", busy))
                if who
            )
            + "; torchrun's store does not answer" * deaf
        )
        error = HungError(f"rank {rank}: {late}{whom}; stacks in {store.join(self.job_uri, 'stacks')}")
        sys.stderr.write(f"{error}\n")
        self.failed(error)  # before a stopped rank is woken for its stacks: it is late too, and knows no cause
        for other, state in stopped:
            self._stacks_of(other, state)
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], signal.SIGKILL)
        os._exit(HungError.exit_code)

    def _stacks_of(self, rank: int, state: dict[str, Any]) -> None:
        """Makes a stopped rank of this machine write its stacks."""
        path = Path(state["stacks"])
        with contextlib.suppress(OSError):
            os.kill(state["pid"], _STACK_SIGNAL)
            os.kill(state["pid"], signal.SIGCONT)
            deadline = time.monotonic() + 2
            while not path.stat().st_size and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)  # for the rest of the file
        self._save_stacks(rank, str(path))  # also where it has ended meanwhile: its file stays

    def _save_stacks(self, rank: int, path: str) -> None:
        with contextlib.suppress(EffnetError, OSError):
            store.write(store.join(self.job_uri, "stacks", f"rank-{rank}.txt"), Path(path).read_bytes())
