"""Everything that training changes, and nothing else: what a checkpoint holds."""

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
    """All of the training state that is no tensor."""

    step: int = 0  # finished global steps
    best_minival_top1: float = -1.0
    best_step: int = 0  # that state.best is the average of
    epoch_ended: int = 0  # step of the last end of an epoch that was dealt with: evaluated where due, and saved
    train_seconds: float = 0.0  # over all attempts, evaluation left out
    rows: list[dict[str, float]] = field(default_factory=list)  # one per evaluation
    health: Health = field(default_factory=Health)
    ledger: list[str] = field(default_factory=list)  # names of the parts that lead here
    accepted: list[dict[str, Any]] = field(default_factory=list)  # changes that a resume was told to accept

    @staticmethod
    def restored(saved: dict[str, Any]) -> Position:
        """The inverse of ``asdict``."""
        return Position(**{**saved, "health": Health(**saved["health"])})

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


@dataclass
class TrainState:
    """The random numbers of a step follow from (seed, step, logical shard), so they need no place here."""

    network: nn.Module
    layout: Layout
    values: Tensor  # [layout.size]; the network's own tensors are views of it
    message: Tensor  # [layout.size + MESSAGE_EXTRA]: gradients, new BN statistics, and a few numbers of this step
    optimizer: optim.Optimizer
    average: Tensor  # [layout.size]
    best: Tensor  # [layout.size]: the average at the best minival accuracy so far
    position: Position

    def tensors(self) -> dict[str, Tensor]:
        """What makes the next step what it is, live and flat."""
        slots = {f"optimizer.{name}": slot for name, slot in self.optimizer.slots().items()}
        return {"values": self.values, "average": self.average, **slots}


MESSAGE_EXTRA = 16  # numbers behind gradients and statistics; see step.py


def initial_state(network: nn.Module, recipe: Recipe) -> TrainState:
    """The state before step 0 of a network, whose tensors become views of one flat tensor."""
    layout = flat.layout_of(network)
    values = flat.flatten(network, layout)
    message = values.new_zeros(layout.size + MESSAGE_EXTRA)
    flat.bind_gradients(network, layout, message[: layout.size])
    optimizer = optim.build_optimizer(values, message, layout, recipe)
    return TrainState(network, layout, values, message, optimizer, values.clone(), values.clone(), Position())


@torch.no_grad()
def digest(state: TrainState) -> int:
    """A number of 62 bits that differs when any bit of the state differs; cheap, and computed on the device."""
    total = torch.zeros((), dtype=torch.int64, device=state.values.device)
    for tensor in state.tensors().values():
        bits = tensor.reshape(-1).view(torch.int32)
        total += bits.sum(dtype=torch.int64) * 31 + (bits[::2].sum(dtype=torch.int64))
    return int(total.item()) % 2**62


def sha256(state: TrainState) -> str:
    """Of weights, BN statistics, average and optimizer: equal exactly where two trainings are equal to the bit."""
    whole = hashlib.sha256()
    for name, tensor in sorted(state.tensors().items()):
        whole.update(name.encode())
        whole.update(tensor.detach().reshape(-1).cpu().numpy().tobytes())
    return whole.hexdigest()
