"""Bookkeeping of the scaling study: checks and counts its points, keeps its MLflow run and writes its report part."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from prefect import task

from conf import compose, schema
from infra.errors import ConfigError, PermanentError
from models.experiments.scaling_study import IMAGENET_CLASSES, network_of, summarize, title
from models.results import ScalingResult, ShardResult, TrainResult
from tasks import policy
from tasks.jobs import work_key
from tasks.report import results as report_results


@task(task_run_name="points", **policy.BOOKKEEPING)
async def start_scaling(config: schema.Config) -> str:
    """Counts every point once, and opens the parent MLflow run.

    Raises:
        ConfigError: No points, or a point that cannot be built; nothing has been trained yet.
    """
    return await asyncio.to_thread(_start, config)


def _start(config: schema.Config) -> str:
    from infra.tracking import runs
    from models.networks.build import compute_cost

    points = config.scaling.points
    if not points:
        raise ConfigError("scaling.points is empty; use scaling=table3 or scaling=paper")
    for point in points:
        compute_cost(network_of(config.model, point), IMAGENET_CLASSES)
    request = {
        "scaling": compose.to_dict(config.scaling),
        "model": compose.to_dict(config.model),
        "data": compose.to_dict(config.data),
        "recipe": compose.to_dict(config.recipe),
    }
    key = work_key("scaling", request)
    # The points are 50 lines: too many for a parameter, so they are logged as an artifact with the results.
    return runs.start_run(
        config.experiment,
        "scaling study",
        key,
        params={k: request[k] for k in ("model", "data", "recipe")},
        tags={"role": "scaling"},
    )


def point_config(config: schema.Config, point: schema.Point) -> schema.Config:
    """The configuration of a point's training."""
    return replace(config, model=network_of(config.model, point))


@task(task_run_name="record", **policy.BOOKKEEPING)
async def record_scaling(
    config: schema.Config, run: str, shards: ShardResult, results: list[TrainResult | BaseException]
) -> ScalingResult:
    """Writes the report part ``scaling`` to the store and to the study's MLflow run.

    Raises:
        TransientError: A service did not respond; the same command resumes.
        EffnetError: No point finished; the error of the first point.
    """
    return await asyncio.to_thread(_record, config, run, shards, results)


def _record(
    config: schema.Config, run: str, shards: ShardResult, results: list[TrainResult | BaseException]
) -> ScalingResult:
    from infra.tracking import runs

    # An unreachable store or server is not a failure of one network: it would fail every point.
    transient = [r for r in results if isinstance(r, BaseException) and not isinstance(r, PermanentError)]
    failed = [r for r in results if isinstance(r, BaseException)]
    if transient or len(failed) == len(results):
        runs.finish_run(run, "FAILED", {})
        raise (transient or failed)[0]
    urls = [runs.run_url(r.mlflow_run) if isinstance(r, TrainResult) else None for r in results]
    result = summarize(config, shards, results, urls)
    part = report_results.publish_part(config, "scaling", result, report_results.digests([shards]))
    runs.log_text(run, json.dumps(part, indent=1), "scaling.json")
    numbers = {
        f"val/top1_{title(p)}".replace(" ", "_"): r.top1
        for p, r in zip(config.scaling.points, results, strict=True)
        if isinstance(r, TrainResult)
    }
    runs.finish_run(run, "FAILED" if failed else "FINISHED", numbers)
    return result
