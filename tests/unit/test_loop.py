"""What the loop makes of a step's numbers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from models.training.loop import Run, _GoBackError, _look
from models.training.state import Position, TrainState
from models.training.step import Outcome


def looked(position: Position, *losses: float) -> None:
    """Shows the loop steps with these losses; as on a GPU, the next one has been made when one is looked at."""
    run, state = cast(Run, SimpleNamespace()), cast(TrainState, SimpleNamespace(position=position))
    for loss in losses:
        position.step += 1
        _look(run, state, Outcome(position.step - 1, loss, 1.0, stop=False))


@pytest.mark.parametrize(("losses", "before"), [
    pytest.param([2.0] * 25 + [50.0], 25, id="exploded: that step changed the weights"),
    pytest.param([2.0] * 25 + [math.nan] * 5, 25, id="not finite: those changed nothing"),
])  # fmt: skip
def test_training_goes_back_to_before_the_first_step_of_the_trouble(losses: list[float], before: int) -> None:
    position: Any = Position(step=1)
    with pytest.raises(_GoBackError) as caught:
        looked(position, *losses)
    assert caught.value.before == before
