"""How the MLflow run of work ends that is left by an error."""

from __future__ import annotations

import asyncio

import pytest

from infra.errors import DivergedError, PreemptedError, TransientError
from infra.tracking import runs
from tasks.tracked import finish_run_on_error


async def leave_by(error: BaseException | None, run: str = "run") -> None:
    async with finish_run_on_error(run):
        if error is not None:
            raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (asyncio.CancelledError(), "KILLED"),
        (PreemptedError("its state is saved"), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (DivergedError("NaN"), "FAILED"),
        (TransientError("the store does not answer"), "FAILED"),
        (ValueError("a defect"), "FAILED"),
    ],
)
def test_a_run_is_killed_if_its_work_was_stopped_and_failed_if_it_failed(
    error: BaseException, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[str, str]] = []
    monkeypatch.setattr(runs, "finish_run", lambda run, how, _: ended.append((run, how)))
    with pytest.raises(type(error)):
        asyncio.run(leave_by(error))
    assert ended == [("run", status)]


def test_a_block_that_ends_well_or_has_no_run_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "finish_run", lambda *_: pytest.fail("ended a run"))
    asyncio.run(leave_by(None))
    with pytest.raises(DivergedError):
        asyncio.run(leave_by(DivergedError("NaN"), ""))


def test_an_mlflow_that_does_not_answer_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TransientError("MLflow does not answer")

    monkeypatch.setattr(runs, "finish_run", refuse)
    with pytest.raises(DivergedError, match="NaN"):
        asyncio.run(leave_by(DivergedError("NaN")))
