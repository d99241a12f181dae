"""What transfer learning came to: each result by its set's metric, and the part of the report beside Table 5."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

from prefect import task

from conf import schema
from infra import store
from models import statistics
from models.paper import TABLE5_BY_SOURCE
from models.results import TrainResult, TransferResult
from models.transfer import Point
from tasks import parts, policy
from tasks.transfer import Plan, Tried

PART = "transfer"


def result_of(plan: Plan, tried: Sequence[Tried], chosen: Point, final: TrainResult) -> TransferResult:
    """All of it, as the set's metric tells it."""
    data, minival = plan.config.transfer.data, plan.shards.minival
    scored = statistics.estimate(data.metric, final.class_correct, final.class_total)
    grid = [
        {**dataclasses.asdict(each.point), "value": each.value(data.metric), "n": minival,
         "stopped_at_epoch": each.stopped_at_epoch, "reason": each.reason,
         "mlflow_run": each.standing.mlflow_run if each.standing else ""}
        for each in tried
    ]  # fmt: skip
    is_point = bool(tried) and plan.config.transfer.final_split == "train"  # found is then no job of its own
    return TransferResult(
        data=data.name, source=data.source, network=final.model, protocol=plan.config.transfer.protocol,
        metric=data.metric, value=scored.value, standard_error=scored.standard_error, n=scored.n, top1=final.top1,
        top5=final.top5, params=final.params, multiply_adds=final.multiply_adds, resolution=final.resolution,
        chosen=dataclasses.asdict(chosen), grid=grid, cost=dataclasses.asdict(plan.cost),
        jobs_found=sum(each.found for each in tried) + (final.reused and not is_point), minutes=final.minutes,
        job=final.job, mlflow_run=final.mlflow_run,
    )  # fmt: skip


@task(task_run_name="record transfer", **policy.BOOKKEEPING)
async def record_transfer(
    config: schema.Config, plans: list[Plan], results: list[TransferResult | BaseException]
) -> list[TransferResult]:
    """Leaves the part of the report. What failed is named in it.

    Raises:
        EffnetError: the first set's that failed, when all others are recorded.
    """
    await asyncio.to_thread(_record, config, plans, results)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, TransferResult)]


def _record(config: schema.Config, plans: Sequence[Plan], results: Sequence[TransferResult | BaseException]) -> None:
    folder = store.join(config.storage, "reports", config.profile, PART)
    failed = []
    for plan, result in zip(plans, results, strict=True):
        if isinstance(result, TransferResult):
            name = f"{result.data}-{result.network}-{result.protocol}.json"
            store.write_json(store.join(folder, name), row_of(result))
        else:
            failed.append(f"{plan.title}: {str(result).splitlines()[0]}")
    leave_part(config, failed)


def leave_part(config: schema.Config, failed: Sequence[str]) -> None:
    """Writes the part out of all rows of this profile, whichever command they come from."""
    folder = store.join(config.storage, "reports", config.profile, PART)
    rows = [store.read_json(uri) for uri in store.list_uris(folder + "/")]
    there = {(row["source"], row["network"]) for row in rows}
    lacking = [
        f"{row.data}: {ours.name} was not fine-tuned on it"
        for source, row in TABLE5_BY_SOURCE.items()
        for ours in (row.ours_public, row.ours_best)
        if (source, ours.name) not in there
    ]
    command = f"effnet transfer profile={config.profile}"
    parts.leave(config, PART, {"rows": rows, "missing": [*failed, *lacking], "command": command})


def row_of(result: TransferResult) -> dict[str, Any]:
    """A result as a row of the part, beside the paper's."""
    from infra import tracking

    address = tracking.run_url(result.mlflow_run)
    return {**dataclasses.asdict(result), "mlflow_url": address, "paper": _paper(result.source, result.network)}


def _paper(source: str, network: str) -> dict[str, Any] | None:
    """What Table 5 has of a network on a set; it prints no multiply-adds."""
    row = TABLE5_BY_SOURCE.get(source)
    pairs = ((row.ours_public, row.public), (row.ours_best, row.best)) if row else ()
    for ours, rival in pairs:
        if ours.name == network:
            beside = {"name": rival.name, "value": rival.accuracy, "params": _whole(rival.params_m)}
            return {"value": ours.accuracy, "params": _whole(ours.params_m), "multiply_adds": None, "rival": beside,
                    "source": "Table 5"}  # fmt: skip
    return None


def _whole(millions: float | None) -> int | None:
    return None if millions is None else round(millions * 1e6)
