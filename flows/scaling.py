"""The scaling study: networks scaled in one dimension against all three together, each point a training job."""

from __future__ import annotations

from functools import partial

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from flows.train import train
from models.experiments.scaling_study import title
from models.results import ScalingResult, TrainResult
from tasks.dispatch import dispatch, fan_out
from tasks.scaling import point_overrides, record_scaling, start_scaling


@flow(name="scaling", flow_run_name=name_runs_by(lambda config, _: f"scaling {config.profile}"))
async def scaling(overrides: list[str]) -> ScalingResult:
    """Trains every point of ``scaling.points`` by ``recipe`` on ``data``.

    A point that fails does not end the study: it is listed as missing. The same command finds what is done.

    Returns:
        Every point with its size and its accuracy.
    """
    config, overrides = configure(overrides)
    run = await start_scaling(config)
    shards = await ensure_shards(config.data, config.storage)
    results = await fan_out(config, (partial(one_point, config, overrides, p, run) for p in config.scaling.points))
    return await record_scaling(config, run, shards, results)


async def one_point(config: schema.Config, overrides: list[str], point: schema.Point, run: str) -> TrainResult:
    """One network of the study, as a child of its MLflow run."""
    name = title(point)
    request = [*overrides, *point_overrides(config, point)]
    result: TrainResult = await dispatch(train, config, request, title=name, parent_run=run, role="scaling", label=name)
    return result
