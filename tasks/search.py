"""Bookkeeping of the grid search: its points, MLflow run, chosen trial, and the family derived from it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from dataclasses import dataclass, replace
from typing import Any

from prefect import task

from conf import compose, schema
from infra.errors import ConfigError, first_line
from models.networks.efficientnet.compound_scaling import Coefficients, grid
from models.results import TrainResult, Trial
from tasks import policy
from tasks.jobs import work_key
from tasks.report.numbers import standard_error

PHIS = range(1, 8)  # B1..B7


@dataclass(frozen=True)
class ScreenedGrid:
    """The grid after counting: the points to train, and those refused before any training."""

    points: list[Coefficients]
    refused: list[dict[str, Any]]  # alpha, beta, gamma, multiply_adds, reason
    multiply_adds: int  # of the baseline, all multipliers 1
    classes: int
    mlflow_run: str = ""


def grid_points(options: schema.Search) -> list[Coefficients]:
    """The grid points with alpha * beta^2 * gamma^2 within the tolerance, before rounding.

    Raises:
        ConfigError: No point is within the tolerance.
    """
    points = grid(options.alpha, options.beta, options.gamma, options.budget, options.tolerance)
    if not points:
        raise ConfigError(
            f"no point of the grid has alpha*beta^2*gamma^2 within {options.tolerance} of {options.budget}; "
            "widen search.tolerance or the lists search.alpha, search.beta, search.gamma"
        )
    return points


@task(task_run_name="grid", **policy.BOOKKEEPING)
async def start_search(
    config: schema.Config, points: list[Coefficients], classes: int, parent_run: str = ""
) -> ScreenedGrid:
    """Counts the network of every point and opens the parent MLflow run of the trials.

    Raises:
        ConfigError: No network is within the budget.
    """
    return await asyncio.to_thread(_start, config, points, classes, parent_run)


def _start(config: schema.Config, points: list[Coefficients], classes: int, parent_run: str) -> ScreenedGrid:
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
    runs.log_text(run, json.dumps(screened.refused, indent=1), "refused.json")
    return replace(screened, mlflow_run=run)


def screen(options: schema.Search, model: schema.Model, points: list[Coefficients], classes: int) -> ScreenedGrid:
    """Refuses points whose rounded network is out of budget or equal to that of another point.

    Raises:
        ConfigError: No point remains; the message holds the distance of the nearest.
    """
    from models.networks.build import compute_cost, resolve_architecture

    _, baseline, _ = compute_cost(model, classes)
    kept: dict[Any, Coefficients] = {}
    refused: list[dict[str, Any]] = []
    misses: list[float] = []
    for point in points:
        network = scaled(model, point.alpha, point.beta, point.gamma)
        _, multiply_adds, _ = compute_cost(network, classes)
        cost = multiply_adds / baseline
        equal_point = kept.get(resolve_architecture(network))
        misses.append(abs(cost - options.budget))
        if misses[-1] > options.counted_tolerance:
            reason = (
                f"counts {cost:.2f} times the baseline's multiply-adds after rounding, "
                f"not {options.budget:g} ± {options.counted_tolerance:g}"
            )
        elif equal_point is not None:
            reason = f"rounds to the same network as {format_point(equal_point)}"
        else:
            kept[resolve_architecture(network)] = point
            continue
        refused.append({**dataclasses.asdict(point), "multiply_adds": multiply_adds, "reason": reason})
    if not kept:
        raise ConfigError(
            f"all {len(points)} points of the grid near the budget {options.budget:g} count too far from it after "
            f"rounding, the nearest by {min(misses):.3f}; raise search.counted_tolerance, which is "
            f"{options.counted_tolerance:g}, or widen the lists"
        )
    return ScreenedGrid(list(kept.values()), refused, baseline, classes)


def scaled(model: schema.Model, depth: float, width: float, resolution: float) -> schema.Model:
    """The configured network with its multipliers scaled by the given factors."""
    return replace(
        model, depth=model.depth * depth, width=model.width * width, resolution=model.resolution * resolution
    )


def format_point(point: Coefficients | Trial) -> str:
    """``alpha 1.2, beta 1.1, gamma 1.15``."""
    return f"alpha {point.alpha:g}, beta {point.beta:g}, gamma {point.gamma:g}"


def trial_config(config: schema.Config, point: Coefficients) -> schema.Config:
    """One trial: B0 scaled by the point, trained by the search's recipe."""
    model = scaled(config.model, point.alpha, point.beta, point.gamma)
    return replace(config, model=model, recipe=config.search.recipe)


def trial_title(point: Coefficients) -> str:
    """``trial 1.2 1.1 1.15``."""
    return f"trial {point.alpha} {point.beta} {point.gamma}"


@task(task_run_name="choose", **policy.BOOKKEEPING)
async def record_search(
    config: schema.Config, screened: ScreenedGrid, results: list[TrainResult | BaseException]
) -> dict[str, Any]:
    """Chooses by minival accuracy, lists ties, derives the family, and logs the result to the search's MLflow run.

    Raises:
        EffnetError: No trial finished; the error of the first trial.
    """
    choice = select_trials(config.search, screened, results)
    best = choice["best"]
    winner = Coefficients(best["alpha"], best["beta"], best["gamma"])
    choice["family"] = await asyncio.to_thread(family, config.model, winner, screened.classes)
    await asyncio.to_thread(_record, screened.mlflow_run, choice)
    return choice


def select_trials(
    options: schema.Search, screened: ScreenedGrid, results: list[TrainResult | BaseException]
) -> dict[str, Any]:
    """Chooses among the finished trials; lists the others under ``failed`` with their reason.

    Raises:
        EffnetError: No trial finished; the error of the first trial.
    """
    pairs = list(zip(screened.points, results, strict=True))
    done = [(p, r) for p, r in pairs if isinstance(r, TrainResult)]
    failed = [(p, r) for p, r in pairs if isinstance(r, BaseException)]
    if not done:
        raise failed[0][1]
    kept = replace(screened, points=[p for p, _ in done])
    return {
        **summary(options, kept, [r for _, r in done]),
        "failed": [f"{trial_title(p)}: {first_line(error)}" for p, error in failed],
    }


def summary(options: schema.Search, screened: ScreenedGrid, results: list[TrainResult]) -> dict[str, Any]:
    """Trials in grid order, the best, and those within one standard error of it.

    The standard error is that of a binomial proportion: sqrt(p (1 - p) / n). Equal accuracies: the cheapest is best.
    """
    trials = [
        Trial(
            p.alpha,
            p.beta,
            p.gamma,
            p.cost,
            r.params,
            r.multiply_adds,
            r.resolution,
            r.minival_top1,
            r.n_minival,
            standard_error(r.minival_top1, r.n_minival) or 0.0,
            r.multiply_adds / screened.multiply_adds,
            r.mlflow_run,
        )
        for p, r in zip(screened.points, results, strict=True)
    ]
    best = max(trials, key=lambda t: (t.minival_top1, -t.multiply_adds))
    tied = [t for t in trials if t is not best and t.minival_top1 >= best.minival_top1 - best.standard_error]
    return {
        "trials": [dataclasses.asdict(t) for t in trials],
        "best": dataclasses.asdict(best),
        "tied": [dataclasses.asdict(t) for t in tied],
        "verdict": verdict(best, tied, len(trials)),
        "refused": screened.refused,
        "budget": options.budget,
        "tolerance": options.tolerance,
        "counted_tolerance": options.counted_tolerance,
        "found": sum(r.reused for r in results),  # trials of earlier runs
    }


def verdict(best: Trial, tied: list[Trial], trials: int) -> str:
    """The choice and its statistical uncertainty, as text."""
    scored = f"{best.minival_top1:.2f} ± {best.standard_error:.2f} % of {best.n_minival} minival images"
    if trials == 1:
        return f"{format_point(best)} is the only trial ({scored})"
    if not tied:
        return f"{format_point(best)} is best ({scored}); no other trial lies within one standard error"
    others = f"{len(tied)} of the other {trials - 1} trial{'s' if trials > 2 else ''}"
    return (
        f"{format_point(best)} leads ({scored}) but is within one standard error of {others}: "
        f"{'; '.join(format_point(t) for t in tied)}"
    )


def family(model: schema.Model, winner: Coefficients, classes: int) -> list[dict[str, Any]]:
    """B1..B7 derived from the winner's coefficients, beside the family that the paper set by hand, with their costs.

    Width, depth and resolution are relative to B0; ``resolution_px`` is the image side. No integer phi of the
    paper's own coefficients gives the hand-set family. Source: paper section 3.3; official ``efficientnet_params``.
    """
    from models.networks.efficientnet.variants import VARIANTS

    b0 = VARIANTS["efficientnet_b0"]
    rows = []
    for phi in PHIS:
        name = f"efficientnet_b{phi}"
        variant = VARIANTS[name]
        derived = (winner.beta**phi, winner.alpha**phi, winner.gamma**phi)
        relative = (variant.width, variant.depth, variant.resolution / b0.resolution)
        rows.append(
            {
                "phi": phi,
                "derived": _member(derived, scaled(model, derived[1], derived[0], derived[2]), classes),
                "hand_set": {"name": name, **_member(relative, replace(model, name=name), classes)},
            }
        )
    return rows


def _member(relative: tuple[float, float, float], network: schema.Model, classes: int) -> dict[str, Any]:
    from models.networks.build import compute_cost

    params, multiply_adds, resolution_px = compute_cost(network, classes)
    width, depth, resolution = relative
    return {
        "width": width,
        "depth": depth,
        "resolution": resolution,
        "params": params,
        "multiply_adds": multiply_adds,
        "resolution_px": resolution_px,
    }


def _record(run: str, choice: dict[str, Any]) -> None:
    from infra.tracking import runs

    runs.log_text(run, json.dumps(choice, indent=1), "search.json")
    best = choice["best"]
    numbers = {key: float(best[key]) for key in ("alpha", "beta", "gamma", "minival_top1", "standard_error")}
    runs.finish_run(run, "FINISHED", {f"best_{key}": value for key, value in numbers.items()})
