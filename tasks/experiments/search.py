"""Bookkeeping of the grid search: its MLflow run, its trials, and the result."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace

from prefect import task

from conf import compose, schema
from models.experiments.grid_search import ScreenedGrid, family, screen, select_trials
from models.experiments.scaling_study import scaled
from models.networks.efficientnet.compound_scaling import Coefficients
from models.results import SearchResult, TrainResult, Trial
from tasks import policy
from tasks.jobs import work_key


@task(task_run_name="grid", **policy.BOOKKEEPING)
async def start_search(
    config: schema.Config, points: list[Coefficients], classes: int, parent_run: str = ""
) -> ScreenedGrid:
    """Counts the network of every point and opens the parent MLflow run of the trials.

    Raises:
        ConfigError: No network is within the budget.
    """
    return await asyncio.to_thread(_start, config, points, classes, parent_run)


def _start(config: schema.Config, points: Sequence[Coefficients], classes: int, parent_run: str) -> ScreenedGrid:
    from infra.tracking import runs

    screened = screen(config.search, config.model, points, classes)
    request = {
        "search": compose.to_dict(config.search),
        "model": compose.to_dict(config.model),
        "data": compose.to_dict(config.data),
    }
    key = work_key("search", request)
    run = runs.start_run(
        config.experiment,
        "grid search",
        key,
        parent=parent_run or None,
        params=request,
        tags={"role": "search", "refused": str(len(screened.refused))},
    )
    runs.log_text(run, json.dumps([dataclasses.asdict(point) for point in screened.refused], indent=1), "refused.json")
    return replace(screened, mlflow_run=run)


def trial_config(config: schema.Config, point: Coefficients, seed: int = 0) -> schema.Config:
    """One trial: B0 scaled by the point, trained by the search's recipe; ``seed`` counts from the recipe's."""
    model = scaled(config.model, point.alpha, point.beta, point.gamma)
    recipe = config.search.recipe
    return replace(config, model=model, recipe=replace(recipe, seed=recipe.seed + seed))


@task(task_run_name="choose", **policy.BOOKKEEPING)
async def record_search(
    config: schema.Config, screened: ScreenedGrid, results: list[list[TrainResult | BaseException]]
) -> SearchResult:
    """Chooses by minival accuracy, lists ties, derives the family, and logs the result to the search's MLflow run.

    Args:
        config: Configuration of the command.
        screened: The points that were trained.
        results: For each point, the result of each seed.

    Raises:
        EffnetError: No trial finished; the error of the first trial.
    """
    return await asyncio.to_thread(_record, config, screened, results)


def _record(
    config: schema.Config, screened: ScreenedGrid, results: Sequence[Sequence[TrainResult | BaseException]]
) -> SearchResult:
    from infra.tracking import runs
    from models.training import per_image

    def linked(trial: Trial) -> Trial:
        return replace(trial, mlflow_url=runs.run_url(trial.mlflow_run))

    done = [result for seeds in results for result in seeds if isinstance(result, TrainResult)]
    read = {result.job: per_image.read_minival(result.job_uri, vars(result)) for result in done}
    answers = {job: correct for job, correct in read.items() if correct is not None}
    chosen = select_trials(config.search, screened, results, answers)
    best = linked(chosen.best)
    result = replace(
        chosen,
        trials=tuple(map(linked, chosen.trials)),
        best=best,
        tied=tuple(map(linked, chosen.tied)),
        best_at_equal_cost=linked(chosen.best_at_equal_cost) if chosen.best_at_equal_cost else None,
        family=family(config.model, Coefficients(best.alpha, best.beta, best.gamma), screened.classes),
    )
    runs.log_text(screened.mlflow_run, json.dumps(dataclasses.asdict(result), indent=1), "search.json")
    tags = {f"best_{key}": f"{getattr(best, key):g}" for key in ("alpha", "beta", "gamma", "standard_error")}
    runs.finish_run(screened.mlflow_run, "FINISHED", {"minival/top1": best.minival_top1}, tags)
    return result
