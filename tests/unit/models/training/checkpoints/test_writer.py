"""The thread that writes checkpoints: what of it fails, and what it writes anew."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from conf.schema import Recipe
from models.training.checkpoints import format as checkpoint_format
from models.training.checkpoints import state as states
from models.training.checkpoints.state import TrainState
from models.training.checkpoints.writer import CheckpointWriter
from models.training.supervision.faults import Faults
from models.training.supervision.watchdog import Watchdog

JOB = "file:///nowhere/job"


class NoWatchdog:
    def writing(self, step: int | None) -> None:
        pass


@pytest.fixture
def state() -> TrainState:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    return states.initial_state(network, Recipe(global_batch=64))


def make_writer() -> CheckpointWriter:
    return CheckpointWriter(JOB, {}, 2, Faults(JOB, 0), cast(Watchdog, NoWatchdog()))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Name of every object that is written, with the sum of its values; nothing reaches a store."""
    names: list[tuple[str, float]] = []

    def write_object(_: str, name: str, tensors: dict[str, torch.Tensor], *__: Any) -> dict[str, Any]:
        names.append((name, sum(float(tensor.double().sum()) for tensor in tensors.values())))
        return {"name": name}

    monkeypatch.setattr(checkpoint_format, "write_object", write_object)
    monkeypatch.setattr(checkpoint_format, "write_manifest", lambda *_: None)
    monkeypatch.setattr(checkpoint_format, "prune", lambda *_: None)
    return names


def test_an_unexpected_error_of_the_thread_is_no_written_checkpoint(
    state: TrainState, written: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint_format, "write_manifest", fail)
    writer = make_writer()
    for number in (1, 2):
        writer.start(state, None)
        writer.wait()
        assert (writer.failures, str(writer.error)) == (number, "[Errno 5] Input/output error")
    writer.start(state, None)
    with pytest.raises(OSError, match="Input/output error"):
        writer.wait()


def test_the_best_average_is_written_once_and_anew_after_a_rewind(
    state: TrainState, written: list[tuple[str, float]]
) -> None:
    writer, state.position.best_step = make_writer(), 7
    for _ in range(2):
        writer.start(state, None)
        writer.wait()
    writer.forget_best()
    state.best.add_(1)
    writer.start(state, None)
    writer.wait()
    best = [total for name, total in written if name == "best-00000007"]
    assert len(best) == 2
    assert best[1] != best[0]
