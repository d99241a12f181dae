"""How the loop reacts to the numbers of a step and of an evaluation."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from conf.schema import Job, Model, Runtime, StopRule
from infra.errors import BelowTargetError, DivergedError, TransientError
from models.data.loading.loader import Loader
from models.training.checkpoints.state import Position, TrainState
from models.training.loop import (
    Run,
    _check_interrupted,
    _check_target,
    _evaluate_minival,
    _handle_outcome,
    _RewindError,
    _write_rows,
)
from models.training.metrics import Accuracy
from models.training.step import Outcome


def looked(position: Position, *losses: float) -> None:
    """Shows the loop steps with these losses; as on a GPU, the next one has been made when one is looked at."""
    run = cast(Run, SimpleNamespace(loss_interval=10, steps_per_epoch=20))
    state = cast(TrainState, SimpleNamespace(position=position))
    for loss in losses:
        position.step += 1
        _handle_outcome(run, state, Outcome(position.step - 1, loss, 1.0, stop=False))


@pytest.mark.parametrize(
    ("losses", "before"),
    [
        pytest.param([2.0] * 25 + [50.0], 25, id="exploded: that step changed the weights"),
        pytest.param([2.0] * 25 + [math.nan] * 5, 25, id="not finite: those changed nothing"),
    ],
)
def test_training_rewinds_to_before_the_first_step_of_the_trouble(losses: list[float], before: int) -> None:
    position: Any = Position(step=1)
    with pytest.raises(_RewindError) as caught:
        looked(position, *losses)
    assert caught.value.before == before


def test_the_loss_of_every_interval_is_a_row_unless_it_is_not_finite() -> None:
    position = Position(step=1)
    looked(position, *[2.0] * 19, math.nan, *[1.5] * 10)
    assert [(row["step"], row["epoch"], row["train_loss"]) for row in position.rows] == [(10, 0, 2.0), (30, 1, 1.5)]


def test_of_averages_the_best_on_minival_is_kept_and_of_equals_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([40.0, 60.0, 60.0, 50.0])
    monkeypatch.setattr(
        "models.training.loop.evaluate", lambda *_: Accuracy(next(accuracies), 90.0, 1.0, 10, (3, 3), (5, 5))
    )
    watchdog = SimpleNamespace(enter=lambda _: None)
    run = cast(Run, SimpleNamespace(watchdog=watchdog, eval_network=None, ranks=None))
    position = Position()
    state = cast(TrainState, SimpleNamespace(position=position, average=torch.zeros(2), best=torch.zeros(2)))
    for step in (10, 20, 30, 40):
        position.step = step
        state.average.fill_(step)
        scores = _evaluate_minival(run, state, cast(Loader, None), epoch=0)
    assert scores["minival_top1"] == 50.0
    assert (position.best_minival_top1, position.best_step) == (60.0, 20)
    assert state.best.tolist() == [20.0, 20.0]


def test_an_average_that_predicts_nothing_has_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.loop.evaluate", lambda *_: Accuracy(10.0, 50.0, math.nan, 10, (1, 0), (5, 5)))
    run = cast(Run, SimpleNamespace(watchdog=SimpleNamespace(enter=lambda _: None), eval_network=None, ranks=None))
    state = cast(TrainState, SimpleNamespace(position=Position(), average=torch.ones(2), best=torch.zeros(2)))
    with pytest.raises(DivergedError, match=r"loss on minival after epoch 3 is nan; lower recipe\.lr_per_256"):
        _evaluate_minival(run, state, cast(Loader, None), epoch=3)
    assert state.best.tolist() == [0.0, 0.0]


RULE = StopRule("efficientnet_b0", "digits", epoch=4, top1=70.0)


@pytest.mark.parametrize(
    ("changes", "evaluated", "judged"),
    [
        ({}, [(2, 10.0), (3, 69.9)], None),  # not yet
        ({}, [(2, 10.0), (4, 69.9)], 4),
        ({}, [(3, 10.0), (5, 69.9)], 5),  # not evaluated at the epoch itself
        ({}, [(4, 70.0), (5, 60.0)], None),  # judged once
        ({}, [(4, 69.9), (5, 80.0)], 4),
        ({"data_name": "elpv"}, [(4, 69.9)], None),
        ({"model": Model("efficientnet_b1")}, [(4, 69.9)], None),
        ({"init_weights_uri": "s3://effnet/weights"}, [(4, 69.9)], None),  # fine-tuned
        ({"runtime": Runtime()}, [(4, 69.9)], None),
    ],
)
def test_a_training_below_its_target_is_saved_and_ends(
    changes: dict[str, Any], evaluated: list[tuple[int, float]], judged: int | None
) -> None:
    saved: list[object] = []
    job = replace(Job("train", data_name="digits", runtime=Runtime(stop_below=[RULE])), **changes)
    run: Any = SimpleNamespace(
        job=job,
        watchdog=SimpleNamespace(enter=lambda _: None),
        checkpoints=SimpleNamespace(save_and_wait=saved.append),
        preemption=SimpleNamespace(saved=lambda: None),
    )
    rows = [{"step": 1.0, "epoch": 4.0, "train_loss": 1.0}]
    rows += [{"step": 10.0 * epoch, "epoch": float(epoch), "minival_top1": top1} for epoch, top1 in evaluated]
    state: Any = SimpleNamespace(position=Position(step=50, rows=rows))
    if judged is None:
        _check_target(run, state)
    else:
        with pytest.raises(
            BelowTargetError, match=rf"is 69.90 % after epoch {judged}, below the 70 % at epoch 4 .*=\[\]"
        ):
            _check_target(run, state)
    assert saved == ([] if judged is None else [state])


def test_a_store_that_does_not_answer_costs_no_epoch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> None:
        raise TransientError("object store does not answer")

    monkeypatch.setattr("models.training.loop.write_rows", gone)
    _write_rows(cast(Run, SimpleNamespace(job_uri="s3://b/jobs/x")), [{"step": 10}])
    assert "metrics of step 10 not written: object store does not answer; they will be written with" in caplog.text


def test_a_long_evaluation_gives_signs_of_life() -> None:
    signs: list[str] = []
    run = SimpleNamespace(
        watchdog=SimpleNamespace(beat=lambda: signs.append("beat")),
        progress=SimpleNamespace(report=lambda: signs.append("status")),
        faults=SimpleNamespace(at=lambda *_: None),
        preemption=SimpleNamespace(requested=False),
    )
    assert not _check_interrupted(cast(Run, run), cast(TrainState, SimpleNamespace(position=Position())), "eval")
    assert signs == ["beat", "status"]
