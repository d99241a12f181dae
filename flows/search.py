"""The grid search of the paper's section 3.3: one training job for each (alpha, beta, gamma)."""

from __future__ import annotations

from functools import partial

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from flows.train import train
from models.experiments.grid_search import grid_points
from models.networks.efficientnet.compound_scaling import Coefficients
from models.results import SearchResult, TrainResult
from tasks.dispatch import dispatch, fan_out
from tasks.search import record_search, start_search, trial_overrides


@flow(name="search", flow_run_name=name_runs_by(lambda config, _: f"search {config.profile}"))
async def search(overrides: list[str], parent_run: str = "") -> SearchResult:
    """Trains every point of the grid whose counted cost meets the budget, and chooses the best on minival.

    Returns:
        The trials, the best and those within one standard error of it, what was refused or failed, and the family.
    """
    config, overrides = configure(overrides)
    points = grid_points(config.search)
    shards = await ensure_shards(config.data, config.storage)  # the class count belongs to the cost
    screened = await start_search(config, points, shards.classes, parent_run)
    # A trial that diverges does not end the search: its error comes back in its place.
    run = screened.mlflow_run
    results = await fan_out(config, (partial(trial, config, overrides, point, run) for point in screened.points))
    return await record_search(config, screened, results)


async def trial(config: schema.Config, overrides: list[str], point: Coefficients, run: str) -> TrainResult:
    """One point of the grid, as a child of the search's MLflow run."""
    name = f"trial {point.alpha} {point.beta} {point.gamma}"
    request = [*overrides, *trial_overrides(config, point)]
    result: TrainResult = await dispatch(train, config, request, title=name, parent_run=run, role="trial", label=name)
    return result
