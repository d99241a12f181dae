"""Writes checkpoints from a thread, so that a step waits only for a copy in memory."""

from __future__ import annotations

import logging
import threading
from typing import Any

import torch
from torch import Tensor

from infra import store
from infra.errors import EffnetError
from models.training.checkpoints import format as checkpoint_format
from models.training.checkpoints.state import TrainState
from models.training.supervision.faults import Faults, room_again
from models.training.supervision.watchdog import Watchdog

log = logging.getLogger("effnet")
MAX_FAILURES = 3  # in a row


class CheckpointWriter:
    """Rank 0's writer. One checkpoint at a time; its memory is taken once and used again.

    Args:
        job_uri: the run folder.
        identity: what the job is; see lineage.py.
        keep: how many checkpoints stay.
        faults: for tests.
        watchdog: bounds how long a write may take.
    """

    def __init__(self, job_uri: str, identity: dict[str, Any], keep: int, faults: Faults, watchdog: Watchdog) -> None:
        self.job_uri, self.identity, self.keep = job_uri, identity, keep
        self.faults, self.watchdog = faults, watchdog
        self.failures = 0
        self.error: EffnetError | None = None
        self._thread: threading.Thread | None = None
        self._copies: dict[str, Tensor] = {}
        self._best: tuple[int, Any] = (-1, None)  # step and manifest entry of the best average last written
        self._ledger: dict[str, str] = {}  # parts not yet in the store, by name

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, state: TrainState, ledger_part: str | None) -> None:
        """Copies the state, waiting for an earlier write first, and writes it from a thread.

        Args:
            state: after a whole step.
            ledger_part: lines of the ledger since the last checkpoint; None: there is no ledger.

        Raises:
            EffnetError: the third write in a row has failed.
        """
        self.wait()
        position = state.position
        if ledger_part is not None:
            name = f"{position.step:08d}-after-{_last_step(position.ledger):08d}.jsonl"
            position.ledger.append(name)
            self._ledger[name] = ledger_part
        copied = self._copy({**state.tensors(), "best": state.best})
        manifest = {
            "step": position.step,
            "position": position.plain(),
            "identity": self.identity,
            "layout": state.layout.described(),
        }
        self._thread = threading.Thread(
            target=self._run, args=(manifest, position.best_step, copied), name="checkpoint"
        )
        self._thread.start()

    def wait(self) -> None:
        """Returns when nothing is being written.

        Raises:
            EffnetError: the third write in a row has failed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self.error is not None and self.failures >= MAX_FAILURES:
            raise self.error

    def _copy(self, tensors: dict[str, Tensor]) -> torch.cuda.Event | None:
        """Copies to memory of our own; on a GPU without waiting for it."""
        for name, tensor in tensors.items():
            if name not in self._copies:
                self._copies[name] = torch.empty(tensor.numel(), dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies[name].copy_(tensor.detach().reshape(-1), non_blocking=True)
        if not tensors["values"].is_cuda:
            return None
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return copied

    def _run(self, manifest: dict[str, Any], best_step: int, copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        step = manifest["step"]
        self.watchdog.writing(step)
        full = self.faults.at("save", step) == "full"
        try:
            self._write(manifest, best_step)
            self.failures, self.error = 0, None
        except EffnetError as error:
            self.failures, self.error = self.failures + 1, error
            log.error(
                "checkpoint of step %d NOT written (%d of %d failures allowed in a row), the one before it stays: %s",
                step,
                self.failures,
                MAX_FAILURES - 1,
                error,
            )
        finally:
            if full:
                room_again()
            self.watchdog.writing(None)

    def _write(self, manifest: dict[str, Any], best_step: int) -> None:
        step, faults = manifest["step"], self.faults
        for name, part in list(self._ledger.items()):
            store.write(store.join(self.job_uri, "ledger", name), part.encode())
            del self._ledger[name]
        state = {name: copy for name, copy in self._copies.items() if name != "best"}
        manifest["state"] = checkpoint_format.write_object(
            self.job_uri, f"step-{step:08d}", state, "save-state", step, faults
        )
        if self._best[0] != best_step:
            best = {"best": self._copies["best"]}
            name = f"best-{best_step:08d}"
            self._best = (
                best_step,
                checkpoint_format.write_object(self.job_uri, name, best, "save-best", step, faults),
            )
        manifest["best"] = self._best[1]
        checkpoint_format.write_manifest(self.job_uri, manifest, faults)
        checkpoint_format.prune(self.job_uri, self.keep, step, faults)


def _last_step(ledger: list[str]) -> int:
    return int(ledger[-1].split("-")[0]) if ledger else 0
