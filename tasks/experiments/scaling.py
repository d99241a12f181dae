"""Bookkeeping of the scaling study: checks and counts its points, keeps its MLflow run and writes its report part."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

from prefect import task

from conf import compose, schema
from infra.errors import PermanentError
from models.experiments.equal_cost import compare_points, match_points
from models.experiments.scaling_study import IMAGENET_CLASSES, check_points, network_of, summarize, title
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

    check_points(config.scaling)
    for point in config.scaling.points:
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


@task(task_run_name="multipliers", **policy.BOOKKEEPING)
async def match_costs(config: schema.Config, classes: int) -> schema.Config:
    """The configuration with the multipliers that count ``scaling.equal_cost``, if that is set."""
    points = await asyncio.to_thread(match_points, config.model, config.scaling, classes)
    return replace(config, scaling=replace(config.scaling, points=points))


def point_config(config: schema.Config, point: schema.Point, seed: int = 0) -> schema.Config:
    """The configuration of a point's training; ``seed`` counts from the recipe's, and runs over the folds."""
    recipe = replace(config.recipe, seed=config.recipe.seed + seed)
    return replace(config, model=network_of(config.model, point), recipe=recipe, data=config.data.for_seed(seed))


def require_results(results: Sequence[TrainResult | BaseException]) -> None:
    """Ends a study without a result, or with an error that is not that of one network, as of an unreachable store.

    For the flow: a task would be repeated after an error that the trainings have been repeated after already.

    Args:
        results: Result of each training, or its error.

    Raises:
        TransientError: A service did not respond; the same command resumes.
        EffnetError: No training finished; the error of the first one.
    """
    failed = [result for result in results if isinstance(result, BaseException)]
    of_all = [error for error in failed if not isinstance(error, PermanentError)]
    if of_all or len(failed) == len(results):
        raise (of_all or failed)[0]


@task(task_run_name="record", **policy.BOOKKEEPING)
async def record_scaling(
    config: schema.Config, run: str, shards: list[ShardResult], results: list[list[TrainResult | BaseException]]
) -> ScalingResult:
    """Writes the report part ``scaling`` to the store and to the study's MLflow run.

    Args:
        config: Configuration with the points as they were trained.
        run: MLflow run of the study.
        shards: Data set of each seed, with the fold that it was trained on.
        results: For each point, the result of each seed.

    Raises:
        TransientError: MLflow or the store does not respond; the same call resumes later.
    """
    return await asyncio.to_thread(_record, config, run, shards, results)


def _record(
    config: schema.Config, run: str, shards: list[ShardResult], results: list[list[TrainResult | BaseException]]
) -> ScalingResult:
    from infra.tracking import runs
    from models.training import per_image

    every = [result for seeds in results for result in seeds]
    done = [r for r in every if isinstance(r, TrainResult)]
    urls = [runs.run_url(r.mlflow_run) if isinstance(r, TrainResult) else None for r, *_ in results]
    result = summarize(config, shards, results, urls)
    read = {r.job: per_image.read(r.job_uri, vars(r)) for r in done}
    answers = {job: correct for job, correct in read.items() if correct is not None}
    comparisons, verdicts = compare_points(config.scaling, result.points, results, answers, shards)
    result = replace(result, comparisons=comparisons, verdicts=verdicts)
    part = report_results.publish_part(config, "scaling", result, report_results.digests(shards))
    runs.log_text(run, json.dumps(part, indent=1), "scaling.json")
    numbers = {
        f"val/top1_{title(p)}".replace(" ", "_"): trained.top1
        for p, trained in zip(config.scaling.points, result.points, strict=True)
        if trained.top1 is not None
    }
    runs.finish_run(run, "FINISHED" if len(done) == len(every) else "FAILED", numbers)
    return result
