"""The complete training state, which is the content of a checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from conf.schema import Recipe
from models.training import flat, optim
from models.training.flat import Layout
from models.training.supervision.health import Health


@dataclass
class Position:
    """The part of the training state that is not a tensor."""

    step: int = 0  # finished global steps
    best_minival_top1: float = -1.0
    best_step: int = 0  # step of the average in state.best
    best_minival_correct: str = ""  # the minival images that it classifies correctly: packed bits in hexadecimal
    epoch_ended: int = 0  # step of the last epoch end that was handled: evaluated if due, and saved
    train_seconds: float = 0.0  # over all attempts, excluding evaluation
    rows: list[dict[str, float]] = field(
        default_factory=list
    )  # of the metrics: one per evaluation, and one per loss_interval
    health: Health = field(default_factory=Health)
    ledger: list[str] = field(default_factory=list)  # names of the ledger parts that lead to this state
    accepted: list[dict[str, Any]] = field(default_factory=list)  # changes accepted by resumes

    @staticmethod
    def restored(saved: dict[str, Any]) -> Position:
        """Rebuilds a position from the output of ``plain``."""
        return Position(**{**saved, "health": Health(**saved["health"])})

    def plain(self) -> dict[str, Any]:
        """Returns the position as plain data for JSON."""
        return asdict(self)


@dataclass
class TrainState:
    """Everything that training changes.

    Random numbers are not part of it: those of a step are derived from (seed, step, batch slice).
    """

    network: nn.Module
    layout: Layout
    values: Tensor  # [layout.size]; the network's tensors are views of it
    message: Tensor  # [layout.size + MESSAGE_EXTRA]: gradients, new BN statistics, and a few numbers of this step
    optimizer: optim.Optimizer
    average: Tensor  # [layout.size]
    best: Tensor  # [layout.size]: the average at the best minival accuracy so far
    position: Position

    def tensors(self) -> dict[str, Tensor]:
        """Returns the live flat tensors that determine the next step."""
        slots = {f"optimizer.{name}": slot for name, slot in self.optimizer.slots().items()}
        return {"values": self.values, "average": self.average, **slots}


MESSAGE_EXTRA = 16  # numbers after gradients and statistics; see step.py


def initial_state(network: nn.Module, recipe: Recipe) -> TrainState:
    """Builds the state before step 0; the network's tensors become views of one flat tensor."""
    layout = flat.layout_of(network)
    values = flat.flatten(network, layout)
    message = values.new_zeros(layout.size + MESSAGE_EXTRA)
    flat.bind_gradients(network, layout, message[: layout.size])
    optimizer = optim.build_optimizer(values, message, layout, recipe)
    return TrainState(network, layout, values, message, optimizer, values.clone(), values.clone(), Position())


@torch.no_grad()
def digest(state: TrainState) -> int:
    """Returns a 62-bit number that differs if any single bit of the state differs; computed cheaply on the device."""
    total = torch.zeros((), dtype=torch.int64, device=state.values.device)
    for tensor in state.tensors().values():
        bits = tensor.reshape(-1).view(torch.int32)
        total += bits.sum(dtype=torch.int64) * 31 + (bits[::2].sum(dtype=torch.int64))
    return int(total.item()) % 2**62


def sha256(state: TrainState) -> str:
    """Returns the sha256 of weights, BN statistics, average and optimizer: equal only for identical states."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(state.tensors().items()):
        hasher.update(name.encode())
        hasher.update(tensor.detach().reshape(-1).cpu().numpy().tobytes())
    return hasher.hexdigest()
