"""Bookkeeping of a reproduction: its MLflow run, and the summary of its child flows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect import task

from conf import schema
from conf.text import format_duration, logger
from infra import machine, store
from infra.errors import DataError, first_line
from infra.store.json_objects import read_object
from models.results import (
    FineTunedRow,
    GalleryResult,
    PhotographsResult,
    Registered,
    SearchResult,
    ShardResult,
    Summary,
    TrainResult,
    TransferResult,
    VariantRow,
)
from models.statistics import interval_95
from tasks import policy
from tasks.jobs import work_key
from tasks.metrics import DESCRIPTION
from tasks.registry.card import plain
from tasks.report import results as report_results
from tasks.report.sections.provenance import present_services
from tasks.transfer import publish_transfer

log = logger()
GRID = "grid search"
MAPS = "class activation maps"
PHOTOGRAPHS = "photographs"
MAX_TAG = 5000  # characters of a description, which is a tag in MLflow


@dataclass(frozen=True)
class ReproductionRun:
    """A running reproduction."""

    mlflow_run: str
    began: float  # unix seconds
    estimate_s: float | None  # of all jobs; None if a part cannot be counted


@dataclass(frozen=True)
class VariantOutcome:
    """All results of one member of the family."""

    trained: TrainResult
    registered: Registered
    transferred: list[TransferResult]  # one per data set


@task(task_run_name="start", **policy.BOOKKEEPING)
async def start_reproduction(
    config: schema.Config, sets: Sequence[schema.Config], began: float | None
) -> ReproductionRun:
    """Opens the parent run in MLflow, and estimates the duration.

    Args:
        config: Configuration of the command.
        sets: One configuration for each data set of the transfer.
        began: Unix time at which the user's command started; None for now.
    """
    return await asyncio.to_thread(_start, config, sets, began)


def _start(config: schema.Config, sets: Sequence[schema.Config], began: float | None) -> ReproductionRun:
    from infra.tracking import runs
    from tasks.plan import estimate

    request = report_results.request_of(config)
    key = work_key("reproduce", request)
    run = runs.start_run(
        config.experiment, f"B0..B7 ({config.profile})", key, params=request, tags={"role": "reproduce"}
    )
    estimated = estimate(config, [one.transfer.data for one in sets], "reproduce")
    estimate_s = None if estimated.unknown else round(estimated.wall_s, 1)
    if estimate_s is not None:
        log.info(
            "all of it takes about %s if nothing is done yet; `effnet status` shows what is left",
            format_duration(estimate_s),
        )
    return ReproductionRun(run, began or time.time(), estimate_s)


@task(task_run_name="sum up", **policy.BOOKKEEPING)
async def finish_reproduction(
    config: schema.Config,
    started: ReproductionRun,
    data: list[ShardResult],
    searched: SearchResult | BaseException,
    outcomes: list[VariantOutcome | BaseException],
    mapped: GalleryResult | BaseException,
    seen: Sequence[PhotographsResult | BaseException],
) -> tuple[Summary, list[BaseException]]:
    """Collects all results into the summary, which lists the failures; returns it with the exceptions.

    Args:
        config: Configuration of the command.
        started: Return value of ``start_reproduction``.
        data: All data sets.
        searched: Result of the grid search, or its exception.
        outcomes: Outcome of each variant, or its exception.
        mapped: The class activation maps, or their exception.
        seen: The maps of photographs, or their exception; empty without ``photographs.networks``.
    """
    return await asyncio.to_thread(_finish, config, started, data, searched, outcomes, mapped, seen)


def _finish(
    config: schema.Config,
    started: ReproductionRun,
    data: list[ShardResult],
    searched: SearchResult | BaseException,
    outcomes: list[VariantOutcome | BaseException],
    mapped: GalleryResult | BaseException,
    seen: Sequence[PhotographsResult | BaseException],
) -> tuple[Summary, list[BaseException]]:
    from infra.tracking import queries, runs

    done = [o for o in outcomes if isinstance(o, VariantOutcome)]
    transferred = [result for o in done for result in o.transferred]
    grid = searched if isinstance(searched, SearchResult) else None
    names = (GRID, *config.variants, MAPS, *[PHOTOGRAPHS] * len(seen))
    by_name = zip(names, (searched, *outcomes, mapped, *seen), strict=True)
    failed = {name: error for name, error in by_name if isinstance(error, BaseException)}
    lines = [f"{name}: {first_line(error)}" for name, error in failed.items()]
    maps = mapped if isinstance(mapped, GalleryResult) else GalleryResult()
    summary = Summary(
        wall_s=round(time.time() - started.began, 1),
        estimate_s=started.estimate_s,
        jobs=(len(grid.trials) * grid.seeds if grid else 0)
        + len(done)
        + sum(m.cost.jobs for m in transferred)
        + len(maps.models),
        jobs_found=(grid.found if grid else 0)
        + sum(o.trained.reused for o in done)
        + sum(m.jobs_found for m in transferred)
        + maps.found,
        profile=config.profile,
        commit=machine.commit(),
        variants=tuple(_variant_row(o) for o in done),
        search=grid,
        transfer=tuple(_fine_tuned_row(result) for result in transferred),
        data=tuple(data),
        machine=machine.facts(),
        services=present_services(),
        workers=tuple(queries.list_workers(_tracked_runs(grid, done))),
        started=machine.format_utc(started.began),
        finished=machine.format_utc(time.time()),
        command=f"effnet reproduce profile={config.profile}",
        config=report_results.request_of(config),
        config_sha256=report_results.digest(report_results.request_of(config)),
        missing=(*(grid.failed if grid else ()), *lines, *(f"{MAPS}: {line}" for line in maps.missing)),
    )
    summary = keep_first_duration(config, summary)
    publish_transfer(config, [line for line in lines if not line.startswith((GRID, MAPS, PHOTOGRAPHS))])
    numbers = {f"val/top1_{row.name}": row.top1 for row in summary.variants}
    described = {DESCRIPTION: describe_on_page(summary, runs.comparison_link)} if summary.variants else {}
    runs.finish_run(started.mlflow_run, "FAILED" if failed else "FINISHED", numbers, described)
    return summary, list(failed.values())


def describe_on_page(summary: Summary, link_comparison: Callable[[Sequence[str]], str]) -> str:
    """The description of a reproduction on its page in MLflow, which shows no more of its networks than their names.

    Args:
        summary: Its results, with one network at least.
        link_comparison: Function from ids of runs to a link to the page that shows them side by side.
    """
    groups = {
        "networks": [row.mlflow_run for row in summary.variants],
        "fine-tuned networks": [row.mlflow_run for row in summary.transfer],
    }
    links = [f"[{title} side by side]({link_comparison(ids)})" for title, ids in groups.items() if len(ids) > 1]
    lines = []
    for row in summary.variants:
        half = interval_95(row.top1, row.n_val)
        fine_tuned = [
            f"; {one.value:.2f} % {one.metric} fine-tuned on {plain(one.data)}"
            for one in summary.transfer
            if one.name == row.name
        ]
        accuracy = f"{row.top1:.2f} ± {half:.2f} % top-1 of {row.n_val:,} val images"
        lines.append(f"- {plain(row.name)}: {accuracy}{''.join(fine_tuned)}")
    missing = [f"- missing: {plain(line)}" for line in summary.missing]
    return "\n".join([*([" · ".join(links), ""] if links else []), *lines, *missing])[:MAX_TAG]


def _tracked_runs(searched: SearchResult | None, outcomes: Sequence[VariantOutcome]) -> list[str]:
    """MLflow runs of the trials, the variants and their transfers."""
    trained = [run for o in outcomes for run in (o.trained.mlflow_run, *(r.mlflow_run for r in o.transferred))]
    trials = [trial.mlflow_run for trial in searched.trials] if searched else []
    return [run for run in (*trials, *trained) if run]


def keep_first_duration(config: schema.Config, summary: Summary) -> Summary:
    """Adds the duration of the earlier run that did the jobs, if this run found all of them.

    Without it, a repetition would replace the time that the work took by the time that finding it took.
    """
    uri = report_results.uri(config, "summary")
    if summary.jobs_found < summary.jobs or not store.exists(uri):
        return summary
    try:
        earlier = read_object(uri)
    except DataError:  # damaged; this run writes it again
        return summary
    first = earlier.get("first_wall_s") or (earlier.get("wall_s") if not _has_found_all(earlier) else None)
    runs = [row.mlflow_run for row in summary.variants]
    same = _training_runs(earlier) == runs and earlier.get("jobs") == summary.jobs
    return replace(summary, first_wall_s=first) if same and isinstance(first, int | float) else summary


def _has_found_all(earlier: Mapping[str, Any]) -> bool:
    return bool(earlier.get("jobs")) and earlier.get("jobs_found") == earlier.get("jobs")


def _training_runs(earlier: Mapping[str, Any]) -> list[Any]:
    """MLflow runs of the trained networks, which stay the same where a newer version has other settings."""
    rows = earlier.get("variants")
    return [row.get("mlflow_run") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _variant_row(outcome: VariantOutcome) -> VariantRow:
    from infra.tracking import runs
    from models.networks.build import compute_cost

    result, registered = outcome.trained, outcome.registered
    paper_params, paper_multiply_adds, _ = compute_cost(schema.Model(name=result.model), 1000)
    return VariantRow(
        name=result.model,
        params=result.params,
        multiply_adds=result.multiply_adds,
        resolution=result.resolution,
        top1=result.top1,
        top5=result.top5,
        n_val=result.n_val,
        minutes=result.minutes,
        images_per_s=result.images_per_s,
        epochs=result.epochs,
        minival_top1=result.minival_top1,
        n_minival=result.n_minival,
        mlflow_run=result.mlflow_run,
        mlflow_url=runs.run_url(result.mlflow_run),
        registered_name=registered.name,
        registered_version=registered.version,
        aliases=registered.aliases,
        paper_params=paper_params,
        paper_multiply_adds=paper_multiply_adds,
    )


def _fine_tuned_row(result: TransferResult) -> FineTunedRow:
    from infra.tracking import runs

    return FineTunedRow(
        name=result.network,
        n_val=result.n,
        data=result.data,
        protocol=result.protocol,
        metric=result.metric,
        value=result.value,
        standard_error=result.standard_error,
        n=result.n,
        top1=result.top1,
        top5=result.top5,
        minutes=result.minutes,
        params=result.params,
        multiply_adds=result.multiply_adds,
        chosen=result.chosen,
        mlflow_run=result.mlflow_run,
        mlflow_url=runs.run_url(result.mlflow_run),
    )
