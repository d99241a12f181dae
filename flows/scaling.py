"""The scaling study: networks scaled in one dimension against all three together, each point a training job."""

from __future__ import annotations

import asyncio

from prefect import flow, task

from conf import schema
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from flows.shard import ensure_folds
from flows.train import train_network
from models.experiments.scaling_study import title
from models.results import ScalingResult
from tasks import policy
from tasks.artifacts import link_run
from tasks.experiments.scaling import match_costs, point_config, record_scaling, require_results, start_scaling
from tasks.tracked import finish_run_on_error


@flow(name="scaling", flow_run_name=name_runs_by(lambda config: f"scaling {config.profile}"))
@report_failures
async def scaling(
    overrides: list[str], profile: str | None = None, data: str | None = None, epochs: int | None = None
) -> ScalingResult:
    """Trains every point of ``scaling.points`` by ``recipe`` on ``data``."""
    config, _ = configure(overrides, profile=profile, data=data, epochs=epochs)
    return await study_scaling(config)


@task(task_run_name="scaling", **policy.GROUP)
async def study_scaling(config: schema.Config) -> ScalingResult:
    """Trains the points and writes the report's part.

    A point that fails does not end the study: it is listed as missing. The same command finds what is done.

    Returns:
        Every point with its size and its accuracy, and what compound scaling did against single dimensions.
    """
    run = await start_scaling(config)
    await link_run(run)
    async with finish_run_on_error(run):
        seeds = range(config.scaling.seeds)
        shards = await ensure_folds(config.data, config.storage, len(seeds))
        config = await match_costs(config, shards[0].classes)
        trainings = [
            train_network(point_config(config, point, seed), shards[seed], run, "scaling", title(point, seed))
            for point in config.scaling.points
            for seed in seeds
        ]
        results = await asyncio.gather(*trainings, return_exceptions=True)
        require_results(results)
        by_point = [results[i : i + len(seeds)] for i in range(0, len(results), len(seeds))]
        return await record_scaling(config, run, shards, by_point)
