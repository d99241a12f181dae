"""Collective save and resume: rank 0 does the I/O and broadcasts the state."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from infra.errors import ArtifactError
from models.training import distributed
from models.training.checkpoints import format as checkpoint_format
from models.training.checkpoints import lineage
from models.training.checkpoints.format import LoadedCheckpoint
from models.training.checkpoints.ledger import Ledger
from models.training.checkpoints.state import Position, TrainState, digest
from models.training.checkpoints.writer import CheckpointWriter
from models.training.distributed import Ranks

log = logging.getLogger("effnet")


@dataclass
class CheckpointManager:
    """Saves and restores the checkpoints of a job; every rank calls its methods together."""

    job_uri: str
    ranks: Ranks
    identity: dict[str, Any]
    accept_changes: bool
    writer: CheckpointWriter | None  # rank 0 only
    ledger: Ledger | None
    saved_step: int = -1  # step of the checkpoint last started or resumed from

    def resume(self, state: TrainState) -> bool:
        """Loads the newest checkpoint that verifies into every rank's state; returns False if there has never been one.

        Raises:
            ResumeError: There are or were checkpoints, but none verifies.
            ChangedError: The checkpoint was written with another configuration, data or code.
            ArtifactError: The checkpoint belongs to another network.
        """
        saved = None
        if self.ranks.is_first:
            saved = checkpoint_format.load_newest(self.job_uri)
        if saved is not None:
            manifest = saved.manifest
            changes = lineage.check(manifest["identity"], self.identity, self.accept_changes, saved.uri)
            if changes:
                manifest["position"]["accepted"].append({"step": saved.step, "changes": changes})
        return self._distribute(state, saved)

    def rewind(self, state: TrainState, before: int) -> bool:
        """Loads the newest checkpoint of at most ``before`` steps and deletes later ones; False if none exists."""
        saved = None
        if self.writer is not None:
            self.writer.wait()
            self.writer.forget_best()
            saved = checkpoint_format.load_newest(self.job_uri, before)
            if saved is not None:
                checkpoint_format.delete_after(self.job_uri, saved.step)
        return self._distribute(state, saved)

    def save(self, state: TrainState) -> None:
        """Starts a checkpoint, unless one is still being written or this step already has one."""
        busy = distributed.broadcast_object(self.writer is not None and self.writer.busy)
        if busy:
            log.warning("step %d: no checkpoint, the previous one is still being written", state.position.step)
        elif self.saved_step != state.position.step:
            self._start(state)

    def save_and_wait(self, state: TrainState) -> None:
        """Writes a checkpoint and returns when it is complete."""
        if self.saved_step != state.position.step:
            if self.writer is not None:
                self.writer.wait()
            self._start(state)
        self.wait()

    def wait(self) -> None:
        """Returns when no checkpoint is being written.

        Raises:
            Exception: The error of the last write, if it failed.
        """
        if self.writer is not None:
            self.writer.wait()
            if self.writer.error is not None:
                raise self.writer.error

    def ranks_agree(self, state: TrainState) -> bool:
        """Returns whether all ranks hold identical bits; detects memory corruption on one rank."""
        return self.ranks.world_size == 1 or distributed.all_equal(digest(state))

    def _start(self, state: TrainState) -> None:
        part = self.ledger.part() if self.ledger is not None else None
        if self.writer is not None:
            self.writer.start(state, part)
        self.saved_step = state.position.step

    def _distribute(self, state: TrainState, saved: LoadedCheckpoint | None) -> bool:
        """Copies rank 0's checkpoint into the state of all ranks; returns False if rank 0 has none."""
        if saved is not None:
            restore(state, saved)
        if not distributed.broadcast_object(saved is not None):
            return False
        distributed.broadcast([*state.tensors().values(), state.best])
        state.position = Position.restored(distributed.broadcast_object(state.position.plain()))
        self.saved_step = state.position.step
        return True


@torch.no_grad()
def restore(state: TrainState, saved: LoadedCheckpoint) -> None:
    """Copies a checkpoint into the state.

    Raises:
        ArtifactError: The checkpoint belongs to another network or optimizer.
    """
    layout = state.layout.described()
    if saved.manifest["layout"] != layout:
        pairs = zip(saved.manifest["layout"], layout, strict=False)
        first = next(
            (f"{stored} where {field} is expected" for stored, field in pairs if stored != field), "other tensors"
        )
        raise ArtifactError(f"checkpoint {saved.uri} belongs to another network: {first}; use another run folder")
    tensors = state.tensors()
    if tensors.keys() != saved.tensors.keys():
        raise ArtifactError(f"checkpoint {saved.uri} belongs to another optimizer; use another run folder")
    for name, tensor in tensors.items():
        tensor.copy_(saved.tensors[name].view_as(tensor))
    state.best.copy_(saved.best)
    state.position = Position.restored(saved.manifest["position"])
