"""The grid search's bookkeeping: its points, its MLflow run, its choice."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import math
from typing import Any

from prefect import task

from conf import compose, schema
from infra.errors import ConfigError
from models.results import TrainResult, Trial
from models.scaling import Coefficients, grid
from tasks import policy


@task(task_run_name="grid", **policy.BOOKKEEPING)
async def start_search(config: schema.Config, parent_run: str) -> tuple[list[Coefficients], str]:
    """Lists the grid's feasible points and opens the MLflow run that the trials are shown under.

    Raises:
        ConfigError: no point meets the budget.
    """
    wanted = config.search
    points = grid(wanted.alpha, wanted.beta, wanted.gamma, wanted.budget, wanted.tolerance)
    if not points:
        raise ConfigError(
            f"no point of the grid has alpha*beta^2*gamma^2 within {wanted.tolerance} of {wanted.budget}; "
            "widen search.tolerance or the lists search.alpha, search.beta, search.gamma"
        )
    return points, await asyncio.to_thread(_start_run, config, parent_run)


def _start_run(config: schema.Config, parent_run: str) -> str:
    from infra import tracking

    asked = {"search": compose.to_dict(config.search), "model": compose.to_dict(config.model),
             "data": compose.to_dict(config.data)}  # fmt: skip
    key = "search-" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
    return tracking.start_run(
        config.experiment,
        "grid search",
        key,
        parent=parent_run or None,
        params=asked,
        tags={"role": "search"},
    )


def trial_overrides(config: schema.Config, point: Coefficients) -> list[str]:
    """One trial in the words of the command line: B0 scaled by the point, trained by the search's recipe."""
    model = config.model
    recipe = [f"recipe.{key}={_word(value)}" for key, value in compose.to_dict(config.search.recipe).items()]
    return [
        f"model.name={model.name}",
        f"model.depth={model.depth * point.alpha!r}",
        f"model.width={model.width * point.beta!r}",
        f"model.resolution={model.resolution * point.gamma!r}",
        *recipe,
    ]


def _word(value: object) -> str:
    return "null" if value is None else str(value)


@task(task_run_name="choose", **policy.BOOKKEEPING)
async def record_search(
    config: schema.Config, run: str, points: list[Coefficients], results: list[TrainResult | BaseException]
) -> dict[str, Any]:
    """Chooses by minival accuracy, names the ties, and writes it all to the search's MLflow run.

    Raises:
        EffnetError: no trial finished; the first one's error.
    """
    done = [(p, r) for p, r in zip(points, results, strict=True) if isinstance(r, TrainResult)]
    failed = [(p, r) for p, r in zip(points, results, strict=True) if isinstance(r, BaseException)]
    if not done:
        raise failed[0][1]
    found = summary(config.search, [p for p, _ in done], [r for _, r in done])
    found["failed"] = [f"trial {p.alpha} {p.beta} {p.gamma}: {str(error).splitlines()[0]}" for p, error in failed]
    await asyncio.to_thread(_record, run, found)
    return found


def summary(wanted: schema.Search, points: list[Coefficients], results: list[TrainResult]) -> dict[str, Any]:
    """Trials in grid order, the best, and those within one standard error of it.

    The standard error is that of a binomial share: sqrt(p (1 - p) / n). Of equals the cheapest is the best.
    """
    trials = [
        Trial(p.alpha, p.beta, p.gamma, p.cost, r.params, r.multiply_adds, r.resolution, r.minival_top1,
              r.n_minival, r.mlflow_run)
        for p, r in zip(points, results, strict=True)
    ]  # fmt: skip
    best = max(trials, key=lambda t: (t.minival_top1, -t.multiply_adds))
    share = best.minival_top1 / 100
    standard_error = 100 * math.sqrt(share * (1 - share) / best.n_minival)
    tied = [t for t in trials if t is not best and t.minival_top1 >= best.minival_top1 - standard_error]
    return {
        "trials": [dataclasses.asdict(t) for t in trials],
        "best": dataclasses.asdict(best),
        "tied": [dataclasses.asdict(t) for t in tied],
        "budget": wanted.budget,
        "tolerance": wanted.tolerance,
        "found": sum(r.reused for r in results),  # trials of earlier runs
    }


def _record(run: str, found: dict[str, Any]) -> None:
    from infra import tracking

    tracking.log_text(run, json.dumps(found, indent=1), "search.json")
    best = found["best"]
    numbers = {key: float(best[key]) for key in ("alpha", "beta", "gamma", "minival_top1")}
    tracking.finish_run(run, "FINISHED", {f"best_{key}": value for key, value in numbers.items()})
