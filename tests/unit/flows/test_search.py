"""The grid search as a flow: which failures are of one trial, and which end the search."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import made_results
import pytest

from conf import compose
from flows import search
from infra.errors import (
    CapacityError,
    ChangedError,
    DivergedError,
    HungError,
    JobError,
    PreemptedError,
    ResumeError,
    TransientError,
)
from infra.tracking import runs
from models.experiments.grid_search import ScreenedGrid
from models.networks.efficientnet.compound_scaling import Coefficients
from models.results import ShardResult

POINTS = (Coefficients(1.0, 1.2, 1.15), Coefficients(1.2, 1.1, 1.15))
SHARDS = ShardResult("digits", "file:///m", "0", 10, 800, 100, 120, 5, reused=True)


def run_search(monkeypatch: pytest.MonkeyPatch, error: BaseException, ended: list[str]) -> list[Any]:
    """What is recorded of a search whose second trial ends with this error; ``ended`` receives the MLflow run's end."""
    recorded: list[Any] = []

    async def start(*_: object) -> ScreenedGrid:
        return ScreenedGrid(POINTS, (), multiply_adds=50, classes=10, mlflow_run="grid")

    async def train(_config: object, _shards: object, _run: str, _role: str, title: str) -> Any:
        if "1.2 1.1 1.15" in title:
            raise error
        return made_results.trained()

    async def record(_config: object, _screened: object, results: Sequence[Any]) -> None:
        recorded.extend(results)

    for name, function in (("start_search", start), ("train_network", train), ("record_search", record)):
        monkeypatch.setattr(search, name, function)
    monkeypatch.setattr(runs, "finish_run", lambda run, status, _: ended.append(f"{run} {status}"))
    asyncio.run(search.search_grid.fn(compose.compose([]), SHARDS, "parent"))
    return recorded


@pytest.mark.parametrize(
    "error", [DivergedError("NaN"), CapacityError("16 GB"), JobError("a worker died"), ResumeError("damaged")]
)
def test_a_trial_that_fails_by_itself_does_not_end_the_search(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    assert run_search(monkeypatch, error, ended) == [[made_results.trained()], [error]]
    assert ended == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TransientError("MLflow does not answer"), "FAILED"),
        (HungError("no step for 10 min"), "FAILED"),
        (ChangedError("other code"), "FAILED"),
        (PreemptedError("stopped by SIGTERM"), "KILLED"),
        (asyncio.CancelledError(), "KILLED"),
    ],
)
def test_an_error_that_no_trial_caused_ends_the_search_instead_of_choosing_among_the_others(
    error: BaseException, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    with pytest.raises(type(error)):
        run_search(monkeypatch, error, ended)
    assert ended == [f"grid {status}"]
