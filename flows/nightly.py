"""Every night: the registered champion, fine-tuned on the transfer set, registered, and promoted if better.

A night continues its own champion, with its classifier. Its key is the digest of that champion, data and recipe: a
night that was killed resumes, and registers nothing twice. A night without new data trains nothing and says so. What
failure must never look like: a night that nobody hears of.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from prefect import flow
from prefect.context import FlowRunContext

from conf import schema
from conf.compose import OverrideError
from flows.configure import configure, name_runs_by, now
from flows.failures import report_failures
from flows.register import judge_version
from flows.shard import ensure_shards
from infra.errors import ConfigError, DivergedError, first_line
from models.results import Registered, ShardResult
from tasks.classes import match_classes
from tasks.jobs import train_job
from tasks.nights.approval import refuse_overdue
from tasks.nights.infra_gate import find_package_fault
from tasks.nights.line import check_data, find_reason_to_skip, find_start
from tasks.nights.record import report_failure, report_night, report_start
from tasks.nights.report import publish_nights
from tasks.nights.start import NightStart
from tasks.registry.promote import refuse
from tasks.registry.register import fetch_registered, register
from tasks.report.publish import refresh
from tasks.train import train as train_task


@flow(name="nightly", flow_run_name=name_runs_by(lambda config: f"nightly {config.nightly.model} {now()}"))
@report_failures
async def nightly(
    overrides: list[str],
    profile: str | None = None,
    model: str | None = None,
    data: str | None = None,
    epochs: int | None = None,
) -> Registered:
    """Fine-tunes the champion of the line on ``transfer.data``, evaluates, registers, promotes the better.

    The line is named after ``nightly.model`` and the data set; its first version starts from the champion of
    ``nightly.model``. The report shows the line and its moves afterwards, the store keeps a record of the night, and
    alerts are sent (``tasks/nights/record.py``).
    """
    try:
        config, _ = configure(overrides, profile=profile, model=model, data=data, epochs=epochs)
    except (OverrideError, ConfigError) as error:
        worker_config, _ = configure([])  # whose settings may name receivers of alerts
        await report_failure(worker_config, f"failed: {first_line(error)}")
        raise
    await report_start(config, _scheduled_start())
    try:
        result = await run_night(config)
        await report_night(config, result)
    except Exception as error:
        kind = "diverged" if isinstance(error, DivergedError) else "failed"
        await report_failure(config, f"{kind}: {first_line(error)}")
        raise
    return result


async def run_night(config: schema.Config) -> Registered:
    """Runs one night, and shows it in the report."""
    await refuse_overdue(config.nightly.model, config)  # its first version too, without which no night starts
    start = await find_start(config)
    if start.line != config.nightly.model:
        await refuse_overdue(start.line, config)
    shards = await ensure_shards(start.data, config.storage)
    outcome = await find_reason_to_skip(start, shards) or await _train_challenger(config, start, shards)
    await publish_nights(config, outcome, shards)
    await refresh(config)
    return outcome


async def _train_challenger(config: schema.Config, start: NightStart, shards: ShardResult) -> Registered:
    await check_data(start, shards, config.nightly)
    data, recipe = start.data, config.transfer.recipe
    model, weights, exact = await fetch_registered(start.parent, config.storage)
    if start.continues:
        weights, _ = await match_classes(weights, exact, shards, config.storage)
    fine_tuned = replace(config, model=model)
    job = train_job(fine_tuned, data, recipe, shards, weights, keep_classifier=start.continues)
    result = await train_task(job, fine_tuned, "", {"role": "nightly", "parent": exact})
    registered = await register(start.line, result, model, data, shards.manifest_uri)
    if fault := await find_package_fault(registered, config.nightly):
        return await refuse(registered, fault)

    return await judge_version(config, registered, data, shards)


def _scheduled_start() -> datetime | None:
    """The time at which the schedule of the deployment starts this run; None if no schedule does."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return run.expected_start_time if run is not None and run.auto_scheduled else None
