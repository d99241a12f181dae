"""Writes checkpoints from a thread, so that a training step waits only for a copy in memory."""

from __future__ import annotations

import logging
import threading
from typing import Any

import torch
from torch import Tensor

from infra import store
from models.training.checkpoints import format as checkpoint_format
from models.training.checkpoints.state import TrainState
from models.training.supervision.faults import Faults, restore_disk_space
from models.training.supervision.watchdog import Watchdog

log = logging.getLogger("effnet")
MAX_FAILURES = 3  # in a row


class CheckpointWriter:
    """Rank 0's checkpoint writer. Writes one checkpoint at a time; its buffers are allocated once and reused.

    Args:
        job_uri: The run folder.
        identity: Identity of the job; see lineage.py.
        keep: Number of checkpoints to keep.
        faults: Injected faults, for tests.
        watchdog: Watchdog that limits the duration of a write.
    """

    def __init__(self, job_uri: str, identity: dict[str, Any], keep: int, faults: Faults, watchdog: Watchdog) -> None:
        self.job_uri, self.identity, self.keep = job_uri, identity, keep
        self.faults, self.watchdog = faults, watchdog
        self.failures = 0
        self.error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._copies: dict[str, Tensor] = {}
        self._best: tuple[int, Any] = (-1, None)  # step and manifest entry of the last written best average
        self._ledger: dict[str, str] = {}  # parts not yet in the store, by name

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, state: TrainState, ledger_part: str | None) -> None:
        """Copies the state, waiting for an earlier write first, and writes it from a thread.

        Args:
            state: State after a complete step.
            ledger_part: Lines of the ledger since the last checkpoint; None without a ledger.

        Raises:
            Exception: The third write in a row has failed; this is its error.
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
        """Returns when no checkpoint is being written.

        Raises:
            Exception: The third write in a row has failed; this is its error.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self.error is not None and self.failures >= MAX_FAILURES:
            raise self.error

    def forget_best(self) -> None:
        """Writes the best average anew with the next checkpoint: after a rewind the same step may have another one."""
        self._best = (-1, None)

    def _copy(self, tensors: dict[str, Tensor]) -> torch.cuda.Event | None:
        """Copies the tensors to the writer's buffers; on a GPU asynchronously, returning the event to wait for."""
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
        except Exception as error:  # noqa: BLE001 - of a thread, from which none would reach the training loop
            self.failures, self.error = self.failures + 1, error
            log.error(
                "checkpoint of step %d NOT written (%d of %d failures allowed in a row), the previous one remains: %s",
                step,
                self.failures,
                MAX_FAILURES - 1,
                error,
            )
        finally:
            if full:
                restore_disk_space()
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
