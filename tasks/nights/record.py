"""What became of a night: its record in the store (``history.py``), the alerts and the heartbeat.

The record is written when the night starts, as ``running``, and again when it ends, however it ends. A night that is
repeated on the same date replaces its record, unless the repetition only finds what was done. A night that was killed
cannot write anything: a hook of the flow on the worker, or else the next night, records it as crashed and sends the
alert. The record holds every alert of the night until a receiver has it; otherwise the next night of the line sends
it.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from prefect import task

from conf import schema
from conf.text import first_line, format_duration, logger
from infra import store
from infra.errors import EffnetError
from infra.machine import format_utc
from infra.services import prefect_api
from models.results import Registered, ShardResult
from tasks import policy
from tasks.nights import alerts
from tasks.nights import start as starts
from tasks.nights.history import (
    CRASHED,
    RUNNING,
    UNSUCCESSFUL,
    Night,
    NightRecord,
    count_skips_before,
    read_record,
    take_over,
    write_record,
)
from tasks.nights.line import NO_VERSION, SKIPPED
from tasks.registry.gate import PROMOTED, REFUSED
from tasks.registry.promote import EARLIER
from tasks.registry.verdict import PENDING, REASON, STATE, WAITING

log = logger()
SKIPS_PER_ALERT = 3
SEARCHED = 10  # newest records among which nights without an end are looked for
ATTENTION = {REFUSED: "refused", WAITING: "waits for approval"}  # outcomes that cause an alert, and its first words
DAY_S = 86400.0
FORGOTTEN_S = DAY_S  # after which a night without an end is taken for crashed, if Prefect does not know its run
_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")  # states of a flow run


@task(task_run_name="report the start of the night", **policy.BOOKKEEPING)
async def report_start(config: schema.Config, run: str, expected: datetime | None) -> Night:
    """Records that a night has started; reports nights of the line that ended without a record, or without an alert.

    Sends an alert if it starts later than ``nightly.alerts.late_minutes`` after its scheduled time.

    Args:
        config: Configuration of the night.
        run: Id of its flow run.
        expected: Scheduled time; None for a night that nobody scheduled.

    Raises:
        TransientError: The store does not respond; the same call resumes later.
    """
    night = await asyncio.to_thread(_open, config, run, datetime.now().astimezone())  # first: a retry repeats it
    await asyncio.to_thread(alerts.beat, config.nightly.alerts, "/start")
    line = describe_delay(expected, datetime.now(UTC), config.nightly.alerts.late_minutes)
    if line is not None:
        log.warning("%s", line)
        await asyncio.to_thread(report_event, config, night, line)
    return night


@task(task_run_name="report the night of {result.name}", **policy.BOOKKEEPING)
async def report_night(config: schema.Config, night: Night, result: Registered) -> None:
    """Records the result of a night; sends an alert if it was refused, waits, or is the third skip in a row.

    Raises:
        TransientError: The store does not respond; the same call resumes later.
    """
    await asyncio.to_thread(_close, config, night, result)
    await asyncio.to_thread(alerts.beat, config.nightly.alerts, "", result.verdict)


async def report_failure(config: schema.Config, night: Night | None, outcome: str, error: str) -> None:
    """Records a night that has failed, was cancelled, or whose data were refused; sends an alert. Raises nothing.

    Args:
        config: Configuration of the night.
        night: The night; None if it failed before it was recorded.
        outcome: How it ended.
        error: First line of the error.
    """
    await asyncio.to_thread(_fail, config, night, outcome, error)


@task(task_run_name="age of {shards.name}", **policy.BOOKKEEPING)
async def report_age(config: schema.Config, night: Night, shards: ShardResult) -> None:
    """Sends an alert if the data of a night have not grown for longer than ``nightly.max_age_days``.

    Their age is that of their manifest, which is written whenever there are new images.

    Raises:
        TransientError: The store does not respond; the same call resumes later.
    """
    await asyncio.to_thread(_report_age, config, night, shards, time.time())


def _report_age(config: schema.Config, night: Night, shards: ShardResult, now: float) -> None:
    limit = config.nightly.max_age_days
    if limit is None:
        return
    age = (now - store.find_entry(shards.manifest_uri).modified) / DAY_S
    if age <= limit:
        return
    line = (
        f"late data: {shards.name} has had no new images for {age:.1f} days, {limit:g} are allowed "
        "(nightly.max_age_days)"
    )
    log.warning("%s", line)
    report_event(config, night, line)


def report_event(config: schema.Config, night: Night, text: str) -> None:
    """Sends an alert about a night that runs; its record holds it until a receiver has it.

    Args:
        config: Configuration of the night.
        night: The night.
        text: What has happened, without the title.

    Raises:
        TransientError: The store does not respond; the alert was not sent.
    """
    alert, record = alerts.title(config, text), read_record(night.uri) or night.record
    waiting = [one for one in record.list_alerts() if one != alert]
    record = replace(record, alert=None, unsent=(*waiting, alert))
    write_record(night.uri, record)
    _send_alerts(config, night.uri, record)


def describe_delay(expected: datetime | None, now: datetime, limit_minutes: float) -> str | None:
    """Says by how much a night is late; None if it is not."""
    if expected is None or (delay := now - expected) <= timedelta(minutes=limit_minutes):
        return None
    return f"late: it starts {format_duration(delay.total_seconds())} after {expected.isoformat(' ', 'minutes')}"


def name_line(config: schema.Config) -> str:
    """Returns the line of a night; where the registry cannot tell, the name that most lines have."""
    try:
        return starts.resolve_start(config).line
    except EffnetError:  # reported by the night itself
        model, data = config.nightly.model, config.transfer.data.name
        return model if model.endswith(f"-{data}") else f"{model}-{data}"


def report_lost(config: schema.Config, run: str, outcome: str, reason: str) -> None:
    """Records and reports the night of a flow run whose process has ended without doing so; otherwise does nothing.

    One that ended before it was recorded as running, or whose record is that of another flow run by now, is reported
    only.

    Args:
        config: Configuration of the night.
        run: Id of its flow run.
        outcome: ``CRASHED`` or ``CANCELLED``.
        reason: What is known about it.
    """
    line = name_line(config)
    latest = store.list_uris(store.join(config.storage, "nights", line))[-2:]  # it may have started the day before
    read = ((uri, read_record(uri)) for uri in latest)
    records = [(uri, record) for uri, record in read if record is not None and run in (record.run, *record.others)]
    for uri, record in records:
        if record.outcome == RUNNING and record.run != run:
            _fail(config, None, outcome, f"{reason}; another flow run has taken over the record of this night")
        elif record.outcome == RUNNING:
            _fail(config, Night(line, uri, record), outcome, reason)
        else:
            _send_alerts(config, uri, record)
    if not records:
        _fail(config, None, outcome, f"{reason}; it ended before it was recorded")


def _open(config: schema.Config, run: str, now: datetime) -> Night:
    line = name_line(config)
    folder = store.join(config.storage, "nights", line)
    uri = store.join(folder, f"{now:%Y-%m-%d}.json")
    store.ensure_root(config.storage)
    for other in store.list_uris(folder)[-SEARCHED:]:
        record = read_record(other)
        if record is None:
            continue
        _send_alerts(config, other, record)
        if record.outcome == RUNNING and record.run != run and _has_ended(record, now.timestamp()):
            reason = f"the night of {record.started} did not record its end: its process or machine is gone"
            _fail(config, Night(line, other, record), CRASHED, reason)
    record = NightRecord(RUNNING, started=format_utc(now.timestamp()), run=run)
    earlier = read_record(uri)
    if earlier is not None:
        record = take_over(record, earlier)
        earlier = replace(earlier, alert=None, unsent=(), others=())
    if earlier is not None and earlier.outcome in UNSUCCESSFUL:  # it is resumed, or another process runs it too
        record = replace(record, started=earlier.started or record.started, earlier=earlier.earlier)
    else:
        record = replace(record, earlier=earlier)
    write_record(uri, record)
    return Night(line, uri, record)


def _close(config: schema.Config, night: Night, result: Registered) -> None:
    result = _with_judged_verdict(result, night)
    is_repeated = result.outcome == SKIPPED or result.verdict.startswith(EARLIER)
    outcome = SKIPPED if is_repeated else result.outcome
    present = read_record(night.uri)
    mine = take_over(night.record, present)
    if is_repeated and mine.earlier is not None:
        restored = take_over(mine.earlier, mine)
        write_record(night.uri, restored)
        _send_alerts(config, night.uri, restored)
        return
    version = None if result.version == NO_VERSION else result.version
    record = replace(mine, outcome=outcome, verdict=result.verdict, version=version, earlier=None)
    if present is not None and present.finished and (present.outcome, present.version) == (outcome, version):
        _send_alerts(config, night.uri, present)
        return  # by another process that ran the same night, or by an earlier attempt of this task
    text = _describe_attention(result, outcome, night.uri)  # before the record is written: a retry counts it again
    alert = None if text is None else alerts.title(config, text)
    record = replace(record, finished=format_utc(time.time()), alert=alert)
    write_record(night.uri, record)
    _send_alerts(config, night.uri, record)


def _describe_attention(result: Registered, outcome: str, uri: str) -> str | None:
    """What a night is reported for that has not failed; None if it needs no attention."""
    if event := ATTENTION.get(outcome):
        return f"{event}: {result.name}/{result.version}: {result.verdict}"
    skips = count_skips_before(uri) + 1 if outcome == SKIPPED else 0
    if skips and skips % SKIPS_PER_ALERT == 0:
        return f"skipped {skips} times in a row: {result.verdict}"
    return None


def _send_alerts(config: schema.Config, uri: str, record: NightRecord) -> None:
    """Sends the alerts of a record and removes them from there; a process that ends in between has one sent again."""
    waiting = record.list_alerts()
    for number, text in enumerate(waiting, 1):
        if not alerts.send(config.nightly.alerts, text):
            return
        write_record(uri, replace(record, alert=None, unsent=waiting[number:]))


def _with_judged_verdict(result: Registered, night: Night) -> Registered:
    """The result of a night that judged its version, was killed, and only finds it when it is resumed."""
    from infra.tracking import registry

    is_repeated = result.outcome == SKIPPED or result.verdict.startswith(EARLIER)
    if not is_repeated or result.version == NO_VERSION:
        return result
    version = registry.resolve_version(f"{result.name}/{result.version}")
    if STATE not in version.tags or format_utc(version.created) < night.record.started:
        return result
    state = version.tags[STATE]
    outcome = PROMOTED if state == PENDING else state  # killed between the move of the alias and this tag
    return replace(result, outcome=outcome, verdict=version.tags.get(REASON, ""))


def _fail(config: schema.Config, night: Night | None, outcome: str, error: str) -> None:
    alert, is_recorded = alerts.title(config, f"{outcome}: {error}"), False
    if night is not None:
        try:
            ended = format_utc(time.time())
            record = take_over(night.record, read_record(night.uri))
            record = replace(record, outcome=outcome, verdict=error, finished=ended, alert=alert)
            if outcome not in UNSUCCESSFUL:  # the result of the night, in place of an earlier one
                record = replace(record, earlier=None)
            write_record(night.uri, record)
            is_recorded = True
            _send_alerts(config, night.uri, record)
        except EffnetError as fault:
            log.warning("the night is not recorded: %s", first_line(fault))
    if not is_recorded:
        alerts.send(config.nightly.alerts, alert)
    alerts.beat(config.nightly.alerts, "/fail", f"{outcome}: {error}")


def _has_ended(record: NightRecord, now: float) -> bool:
    """Whether the flow run of a night has ended, or is unknown to Prefect and was started long ago."""
    if record.run and "PREFECT_API_URL" in os.environ:
        try:
            api = prefect_api.from_environment(os.environ)
            status, run = prefect_api.request(api, "GET", f"/flow_runs/{record.run}", known=(404, 422))
        except EffnetError as error:  # it may run for longer than a day
            log.warning("whether the night of %s still runs is not known: %s", record.started, first_line(error))
            return False
        if status == 200:
            return run.get("state_type") in _ENDED
    return record.started < format_utc(now - FORGOTTEN_S)
