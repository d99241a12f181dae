"""The scaling study: networks scaled in one dimension against all three together, each point a training job."""

from __future__ import annotations

import asyncio

from prefect import flow, task

from conf import schema
from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from flows.train import train_network
from models.experiments.scaling_study import title
from models.results import ScalingResult
from tasks import policy
from tasks.scaling import point_config, record_scaling, start_scaling


@flow(name="scaling", flow_run_name=name_runs_by(lambda config: f"scaling {config.profile}"))
async def scaling(overrides: list[str]) -> ScalingResult:
    """Trains every point of ``scaling.points`` by ``recipe`` on ``data``."""
    config, _ = configure(overrides)
    return await study_scaling(config)


@task(task_run_name="scaling", **policy.GROUP)
async def study_scaling(config: schema.Config) -> ScalingResult:
    """Trains the points and writes the report's part.

    A point that fails does not end the study: it is listed as missing. The same command finds what is done.

    Returns:
        Every point with its size and its accuracy.
    """
    run = await start_scaling(config)
    shards = await ensure_shards(config.data, config.storage)
    points = (
        train_network(point_config(config, point), shards, run, "scaling", title(point))
        for point in config.scaling.points
    )
    return await record_scaling(config, run, shards, await asyncio.gather(*points, return_exceptions=True))
