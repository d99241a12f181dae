"""Saving and resuming as all ranks together: rank 0 reads and writes, the others are told."""

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
    """One rank's part in the checkpoints of a job."""

    job_uri: str
    ranks: Ranks
    identity: dict[str, Any]
    accept_changes: bool
    saver: CheckpointWriter | None  # rank 0 only
    ledger: Ledger | None
    saved_step: int = -1  # of the checkpoint last begun or resumed from

    def resume(self, state: TrainState) -> bool:
        """Loads the newest checkpoint that verifies into every rank's state; False where there has never been one.

        Raises:
            ResumeError: there are or were checkpoints, but none verifies.
            ChangedError: it was made under another configuration, other data or other code.
            ArtifactError: it is of another network.
        """
        saved = None
        if self.ranks.is_first:
            saved = checkpoint_format.load_newest(self.job_uri)
        if saved is not None:
            found = saved.manifest
            changes = lineage.check(found["identity"], self.identity, self.accept_changes, saved.uri)
            if changes:
                found["position"]["accepted"].append({"step": saved.step, "changes": changes})
        return self._take(state, saved)

    def go_back(self, state: TrainState, before: int) -> bool:
        """Loads the newest checkpoint of at most ``before`` steps, and forgets later ones; False if there is none."""
        saved = None
        if self.saver is not None:
            self.saver.wait()
            saved = checkpoint_format.load_newest(self.job_uri, before)
            if saved is not None:
                checkpoint_format.delete_after(self.job_uri, saved.step)
        return self._take(state, saved)

    def save(self, state: TrainState) -> None:
        """Begins a checkpoint, unless one is still being written or this step has one."""
        busy = distributed.broadcast_object(self.saver is not None and self.saver.busy)
        if busy:
            log.warning("step %d: no checkpoint, the one before it is still being written", state.position.step)
        elif self.saved_step != state.position.step:
            self._start(state)

    def save_and_wait(self, state: TrainState) -> None:
        """Writes a checkpoint and returns when it is there."""
        if self.saved_step != state.position.step:
            if self.saver is not None:
                self.saver.wait()
            self._start(state)
        self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        Raises:
            EffnetError: what the last write failed of.
        """
        if self.saver is not None:
            self.saver.wait()
            if self.saver.error is not None:
                raise self.saver.error

    def ranks_agree(self, state: TrainState) -> bool:
        """Whether all ranks hold the same bits; a flipped one is found here."""
        return self.ranks.world_size == 1 or distributed.all_equal(digest(state))

    def _start(self, state: TrainState) -> None:
        part = self.ledger.part() if self.ledger is not None else None
        if self.saver is not None:
            self.saver.start(state, part)
        self.saved_step = state.position.step

    def _take(self, state: TrainState, saved: LoadedCheckpoint | None) -> bool:
        """Rank 0's checkpoint into the state of all ranks."""
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
        ArtifactError: it is of another network or optimizer.
    """
    wanted = state.layout.described()
    if saved.manifest["layout"] != wanted:
        pairs = zip(saved.manifest["layout"], wanted, strict=False)
        first = next((f"{theirs} where {ours} is wanted" for theirs, ours in pairs if theirs != ours), "other tensors")
        raise ArtifactError(f"checkpoint {saved.uri} belongs to another network: {first}; give another run folder")
    own = state.tensors()
    if own.keys() != saved.tensors.keys():
        raise ArtifactError(f"checkpoint {saved.uri} belongs to another optimizer; give another run folder")
    for name, tensor in own.items():
        tensor.copy_(saved.tensors[name].view_as(tensor))
    state.best.copy_(saved.best)
    state.position = Position.restored(saved.manifest["position"])
