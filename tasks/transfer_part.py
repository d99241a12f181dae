"""Transfer results, each in its data set's metric, and their report part beside Table 5."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from prefect import task

from conf import schema
from infra import store
from infra.errors import first_line
from infra.store.json_objects import check_object, read_object
from models import statistics
from models.experiments.transfer import Point
from models.paper import TABLE5_BY_SOURCE
from models.results import TrainResult, TransferResult
from tasks import policy
from tasks.report import results as report_results
from tasks.transfer import GridTrial, TransferPlan

PART = "transfer"
FORMAT = 2  # of a row; rows of other formats are ignored


def result_of(plan: TransferPlan, tried: Sequence[GridTrial], chosen: Point, final: TrainResult) -> TransferResult:
    """Combines the grid and the final job into the result, in the data set's metric."""
    data, minival = plan.config.transfer.data, plan.shards.minival
    scored = statistics.estimate(data.metric, final.class_correct, final.class_total)
    grid = [
        {
            **dataclasses.asdict(trial.point),
            "value": trial.value(data.metric),
            "n": minival,
            "stopped_at_epoch": trial.stopped_at_epoch,
            "reason": trial.reason,
            "mlflow_run": trial.standing.mlflow_run if trial.standing else "",
        }
        for trial in tried
    ]
    is_point = bool(tried) and plan.config.transfer.final_split == "train"  # the final job is then the grid point's job
    return TransferResult(
        data=data.name,
        manifest_sha256=plan.shards.manifest_sha256,
        source=data.source,
        train=plan.shards.train,
        classes=plan.shards.classes,
        network=final.model,
        protocol=plan.config.transfer.protocol,
        metric=data.metric,
        value=scored.value,
        standard_error=scored.standard_error,
        n=scored.n,
        top1=final.top1,
        top5=final.top5,
        params=final.params,
        feature_params=plan.feature_params,
        multiply_adds=final.multiply_adds,
        resolution=final.resolution,
        chosen=dataclasses.asdict(chosen),
        grid=grid,
        cost=dataclasses.asdict(plan.cost),
        jobs_found=sum(trial.reused for trial in tried) + (final.reused and not is_point),
        minutes=final.minutes,
        job=final.job,
        mlflow_run=final.mlflow_run,
    )


@task(task_run_name="record transfer", **policy.BOOKKEEPING)
async def record_transfer(
    config: schema.Config, command: str, plans: list[TransferPlan], results: list[TransferResult | BaseException]
) -> list[TransferResult]:
    """Writes the report part, including the names of failed data sets.

    Args:
        config: Configuration of the command.
        command: The command that makes this result, for the report.
        plans: One plan per data set.
        results: Result of each plan, or its exception.

    Raises:
        EffnetError: The error of the first failed data set, raised after all others are recorded.
    """
    await asyncio.to_thread(_record, config, command, plans, results)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, TransferResult)]


def _record(
    config: schema.Config,
    command: str,
    plans: Sequence[TransferPlan],
    results: Sequence[TransferResult | BaseException],
) -> None:
    folder = store.join(config.storage, "reports", config.profile, PART)
    failed = []
    for plan, result in zip(plans, results, strict=True):
        if isinstance(result, TransferResult):
            name = f"{result.data}-{result.network}-{result.protocol}.json"
            store.write_json(store.join(folder, name), row_of(result, command))
        else:
            failed.append(f"{plan.title}: {first_line(result)}")
    leave_part(config, failed)


def leave_part(config: schema.Config, failed: Sequence[str]) -> None:
    """Writes the part from all rows of this profile, including those of earlier commands."""
    folder = store.join(config.storage, "reports", config.profile, PART)
    stored = {uri: read_object(uri) for uri in store.list_uris(folder)}
    keys = dict.fromkeys(("source", "network", "command", "data", "manifest_sha256"), str)
    rows = [check_object(uri, row, **keys) for uri, row in stored.items() if row.get("format") == FORMAT]
    done = {(row["source"], row["network"]) for row in rows}
    missing = list(failed)
    for source, row in TABLE5_BY_SOURCE.items():
        absent = [ours.name for ours in (row.ours_public, row.ours_best) if (source, ours.name) not in done]
        if absent:
            missing.append(f"{row.data}: not fine-tuned here with Table 5's {' and '.join(absent)}")
    commands = list(dict.fromkeys(row["command"] for row in rows))
    facts = {"rows": rows, "missing": missing, "command": "; ".join(commands)}
    report_results.publish_part(config, PART, facts, {row["data"]: row["manifest_sha256"] for row in rows})


def row_of(result: TransferResult, command: str) -> dict[str, Any]:
    """A result as a row of the part, with its provenance and the paper's values."""
    from infra import machine
    from infra.tracking import runs

    finished = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    provenance = {
        "format": FORMAT,
        "mlflow_url": runs.run_url(result.mlflow_run),
        "command": command,
        "commit": machine.commit(),
        "finished": finished,
    }
    return {**dataclasses.asdict(result), **provenance, "paper": _paper(result.source, result.network)}


def _paper(source: str, network: str) -> dict[str, Any] | None:
    """Values of Table 5 for a network on a data set; the table prints no multiply-adds."""
    row = TABLE5_BY_SOURCE.get(source)
    pairs = ((row.ours_public, row.public), (row.ours_best, row.best)) if row else ()
    for ours, rival in pairs:
        if ours.name == network:
            comparison = {"name": rival.name, "value": rival.accuracy, "params": _to_count(rival.params_m)}
            return {
                "value": ours.accuracy,
                "params": _to_count(ours.params_m),
                "multiply_adds": None,
                "rival": comparison,
                "source": "Table 5",
            }
    return None


def _to_count(millions: float | None) -> int | None:
    return None if millions is None else round(millions * 1e6)
