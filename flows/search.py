"""The grid search of the paper's section 3.3: one training job for each (alpha, beta, gamma)."""

from __future__ import annotations

from functools import partial
from typing import Any

from prefect import flow

from conf import schema
from conf.compose import compose
from flows.train import train
from models.results import TrainResult
from models.scaling import Coefficients
from tasks.dispatch import dispatch, fan_out
from tasks.search import record_search, start_search, trial_overrides


@flow(name="search")
async def search(overrides: list[str], parent_run: str = "") -> dict[str, Any]:
    """Trains every point of the grid and chooses the best on minival.

    Returns:
        ``trials``, ``best``, ``tied`` (within one standard error of the best), ``budget``, ``tolerance``.
    """
    config = compose(overrides)
    points, run = await start_search(config, parent_run)
    # A trial that diverges does not end the search: its error comes back in its place.
    results = await fan_out(config, (partial(trial, config, overrides, point, run) for point in points))
    return await record_search(config, run, points, results)


async def trial(config: schema.Config, overrides: list[str], point: Coefficients, run: str) -> TrainResult:
    """One point of the grid, as a child of the search's MLflow run."""
    name = f"trial {point.alpha} {point.beta} {point.gamma}"
    asked = [*overrides, *trial_overrides(config, point)]
    result: TrainResult = await dispatch(train, config, asked, title=name, parent_run=run, role="trial", label=name)
    return result
