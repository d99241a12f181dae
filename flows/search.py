"""The grid search of the paper's section 3.3: one training job for each (alpha, beta, gamma)."""

from __future__ import annotations

import asyncio

from prefect import flow, task

from conf import schema
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from flows.shard import ensure_shards
from flows.train import train_network
from infra.errors import OF_ONE_NETWORK
from models.experiments.grid_search import grid_points, trial_title
from models.results import SearchResult, ShardResult
from tasks import policy
from tasks.artifacts import link_run
from tasks.experiments.search import record_search, start_search, trial_config
from tasks.tracked import finish_run_on_error


@flow(name="search", flow_run_name=name_runs_by(lambda config: f"search {config.profile}"))
@report_failures
async def search(overrides: list[str], profile: str | None = None, data: str | None = None) -> SearchResult:
    """Trains every point of the grid whose counted cost meets the budget, and chooses the best on minival."""
    config, _ = configure(overrides, profile=profile, data=data)
    grid_points(config.search)  # a mistake in the grid is reported before anything is sharded
    return await search_grid(config, await ensure_shards(config.data, config.storage))


@task(task_run_name="search", **policy.GROUP)
async def search_grid(config: schema.Config, shards: ShardResult, parent_run: str = "") -> SearchResult:
    """Trains and compares the points of the grid, each with ``search.seeds`` seeds.

    A trial that diverges, crashes or does not fit into memory is listed as failed. Any other error, such as a service
    that does not answer, ends the search: the choice would be among the trials that happened to be done.

    Args:
        config: Configuration of the command.
        shards: Shards of ``config.data``; their number of classes belongs to the cost.
        parent_run: Parent MLflow run.

    Returns:
        The trials, the best and those not distinguished from it, what was refused or failed, and the family.

    Raises:
        EffnetError: No trial finished, or an error that no trial caused; the same command resumes.
    """
    screened = await start_search(config, grid_points(config.search), shards.classes, parent_run)
    if not parent_run:
        await link_run(screened.mlflow_run)
    seeds = range(config.search.seeds)
    trials = [
        train_network(trial_config(config, point, seed), shards, screened.mlflow_run, "trial", trial_title(point, seed))
        for point in screened.points
        for seed in seeds
    ]
    async with finish_run_on_error(screened.mlflow_run):
        # A trial that diverges does not end the search: its error comes back in its place.
        results = await asyncio.gather(*trials, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, OF_ONE_NETWORK):
                raise result  # here, since a task would be repeated after it
        by_point = [results[i : i + len(seeds)] for i in range(0, len(results), len(seeds))]
        return await record_search(config, screened, by_point)
