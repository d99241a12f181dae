"""Every night: the registered champion, fine-tuned on the transfer set, registered, and promoted if better.

A night continues its own champion, with its classifier. Its key is the digest of that champion, data and recipe: a
night that was killed resumes, and registers nothing twice. A night without new data trains nothing and says so. What
failure must never look like: a night that nobody hears of.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from prefect import Flow, State, flow
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from conf import schema
from conf.compose import OverrideError
from conf.text import logger
from flows.configure import (
    compose_valid,
    config_of_run,
    configure,
    name_runs_by,
    now,
    settings_of_this_run,
    worker_settings,
)
from flows.evaluate import evaluate_version
from flows.failures import report_failures
from flows.register import judge_version
from flows.shard import write_shards
from infra.errors import AppendError, ConfigError, DataError, DivergedError, PreemptedError, first_line
from models.results import EvalResult, Registered, ShardResult
from tasks.artifacts import link_version, show_outcome
from tasks.classes import match_classes
from tasks.evaluate import registered_input
from tasks.jobs import train_job
from tasks.nights.approval import refuse_overdue
from tasks.nights.batch import (
    RefusedDataError,
    accept_batch,
    check_labels,
    close_batch,
    find_added,
    find_withdrawn,
    open_batch,
    refuse_unusable,
)
from tasks.nights.history import CANCELLED, CRASHED, DIVERGED, FAILED, Night
from tasks.nights.infra_gate import try_package
from tasks.nights.line import check_data, find_reason_to_skip, find_reason_to_wait, find_start
from tasks.nights.record import report_age, report_failure, report_lost, report_night, report_start
from tasks.nights.report import show_failure, show_night
from tasks.nights.start import NightStart
from tasks.nights.watch import describe_unwatched, find_watched, judge_again
from tasks.registry.gate import REFUSED
from tasks.registry.promote import refuse
from tasks.registry.register import fetch_registered, register
from tasks.registry.verdict import add_notes
from tasks.shard import ShardPlan, plan_anew, plan_shards
from tasks.train import train as train_task

log = logger()
# Settings that an alert needs: the receivers one by one, and what names the night.
_OF_ALERTS = (
    "nightly.alerts.webhook",
    "nightly.alerts.email",
    "nightly.alerts.heartbeat",
    "nightly.model",
    "data@transfer.data",
    "transfer.data.name",
    "storage",
)


def describe_run(config: schema.Config) -> str:
    """The name of a night in Prefect, where the nights of several lines are in one list."""
    return f"nightly {config.nightly.model} on {config.transfer.data.name} {now()}"


@flow(name="nightly", flow_run_name=name_runs_by(describe_run))
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
        parameters = {"overrides": overrides, "profile": profile, "model": model, "data": data, "epochs": epochs}
        receivers = compose_valid("nightly", settings_of_this_run(), parameters, _OF_ALERTS)
        await report_failure(receivers, None, FAILED, first_line(error))
        raise
    night: Night | None = None
    try:
        run, expected = _flow_run()
        night = await report_start(config, run, expected)
        if expected is not None and (waiting := await find_reason_to_wait(config)) is not None:
            await report_night(config, night, waiting)
            await show_outcome(night.line, waiting.outcome, waiting.verdict)
            return waiting
        outcome, shards = await run_night(config, night)
        await report_night(config, night, outcome)
    except BaseException as error:  # the cancellation of a task, too
        end = _describe_end(error)
        await report_failure(config, night, *end)
        if night is not None:
            await show_failure(config, night.line)
            if isinstance(error, Exception):  # not while everything is being stopped
                await show_outcome(night.line, *end)
        raise
    page = await show_night(config, outcome.name, shards)
    await show_outcome(outcome.name, outcome.outcome, outcome.verdict)
    await link_version(outcome.name, outcome.version)
    return replace(outcome, page=page)


@nightly.on_crashed
@nightly.on_cancellation
def _report_lost(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Reports a night whose process was killed or cancelled by Prefect; a worker calls it when the process is gone."""
    outcome = CANCELLED if state.is_cancelling() or state.is_cancelled() else CRASHED
    if outcome == CANCELLED and flow_run.start_time is None:  # as one that would have overlapped with the one before
        return
    try:
        config = config_of_run(flow.name, flow_run.parameters)
    except OverrideError:  # it was killed before it could say so
        config = compose_valid(flow.name, worker_settings(), flow_run.parameters, _OF_ALERTS)
    report_lost(config, str(flow_run.id), outcome, state.message or "its process is gone")


async def run_night(config: schema.Config, night: Night) -> tuple[Registered, ShardResult]:
    """Runs a night that is on record; returns its outcome and its data."""
    await refuse_overdue(config.nightly.model, config)  # its first version too, without which no night starts
    start = await find_start(config)
    if start.line != config.nightly.model:
        await refuse_overdue(start.line, config)
    plan, shards = await _write_data(config, start)
    await report_age(config, night, shards)
    outcome, watched = await find_reason_to_skip(start, shards), ""
    if outcome is None and (watched := await _watch_champion(config, night, start, shards)):
        # The champion may be another one now, and the images that came with it withheld.
        start = await find_start(config)
        plan, shards = await _write_data(config, start)
        outcome = await find_reason_to_skip(start, shards)
    elif outcome is None:
        watched = describe_unwatched(start, config.nightly)
    outcome = await close_batch(start, shards, outcome or await _train_challenger(config, start, shards))
    return replace(outcome, verdict=add_notes(outcome.verdict, watched, *plan.refused, plan.absent)), shards


async def _write_data(config: schema.Config, start: NightStart) -> tuple[ShardPlan, ShardResult]:
    """Appends the new images to the data, as a version that is not accepted yet."""
    plan = await _plan_data(config, start)
    await open_batch(plan)
    try:
        return plan, await write_shards(start.data, plan)
    except DataError as error:
        await refuse_unusable(start.data, plan, error)
        raise


async def _plan_data(config: schema.Config, start: NightStart) -> ShardPlan:
    """Plans what is appended to the data; begins them anew after an image has changed its class, or shards were lost.

    Not if ``transfer.data.append=true`` was given: then no set is written again that may be large.
    """
    try:
        return await plan_shards(start.data, config.storage)
    except AppendError as error:
        if config.transfer.data.append:
            raise
        log.warning("the data are sharded anew, since nothing can be appended to them: %s", first_line(error))
        return await plan_anew(start.data, config.storage)


async def _watch_champion(config: schema.Config, night: Night, start: NightStart, shards: ShardResult) -> str:
    """Judges the champion again on the images that came since; says what came of it, empty if it is not worse."""
    watched = await find_watched(start, shards, config)
    if watched is None:
        return ""
    await check_data(start, shards, config.nightly)
    answers = [
        await _evaluate_added(config, start.data, await fetch_registered(ref, config.storage), watched.shards)
        for ref in (watched.champion, watched.previous)
    ]
    return await judge_again(watched, answers, config, night)


async def _evaluate_added(
    config: schema.Config, data: schema.Data, registered: tuple[schema.Model, tuple[str, str], str], added: ShardResult
) -> EvalResult:
    """Evaluates a version on images that were added, cropped as it was registered with."""
    augment = await registered_input(registered[2], data.augment, "data.augment", ())
    return await evaluate_version(replace(config, data=replace(data, augment=augment)), registered, added)


async def _train_challenger(config: schema.Config, start: NightStart, shards: ShardResult) -> Registered:
    await check_data(start, shards, config.nightly)
    data, recipe = start.data, config.transfer.recipe
    model, weights, exact = await fetch_registered(start.parent, config.storage)
    if (added := await find_added(start, shards, config.nightly)) is not None:
        answered = await _evaluate_added(config, data, (model, weights, exact), added)
        await check_labels(start, shards, answered, config.nightly)
    tags = {"role": "nightly", "parent": exact}
    if start.continues:
        weights, assumed = await match_classes(weights, exact, shards, config.storage)
        tags |= {"assumed": f"{exact}: {assumed}"} if assumed else {}
    fine_tuned = replace(config, model=model)
    job = train_job(fine_tuned, data, recipe, shards, weights, keep_classifier=start.continues)
    result = await train_task(job, fine_tuned, "", tags)
    registered = await register(start.line, result, model, data, shards.manifest_uri, config.storage)
    if (withdrawn := await find_withdrawn(registered, shards)) is not None:
        return await refuse(registered, withdrawn)
    trial = await try_package(registered, config.nightly)
    if trial.fault is not None:
        await accept_batch(shards)  # the files are at fault, not the data
        return await refuse(registered, trial.fault)
    judged = await judge_version(config, registered, data, shards)
    return replace(judged, verdict=add_notes(judged.verdict, trial.note))


def _flow_run() -> tuple[str, datetime | None]:
    """Id of this flow run, and the time at which the schedule of the deployment starts it; None if no schedule does."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None:
        return "", None
    return str(run.id), run.expected_start_time if run.auto_scheduled else None


def _describe_end(error: BaseException) -> tuple[str, str]:
    """How a night ended that raised an error, and the first line of it."""
    if isinstance(error, PreemptedError):
        return CANCELLED, first_line(error)
    if not isinstance(error, Exception):  # a signal, or Prefect's cancellation
        return CANCELLED, "it was stopped before its end; the same command, or the next night, resumes it"
    if isinstance(error, RefusedDataError):
        return REFUSED, first_line(error)
    return DIVERGED if isinstance(error, DivergedError) else FAILED, first_line(error)
