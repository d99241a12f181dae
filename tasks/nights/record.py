"""What became of a night: one record per line and date in the store, the alerts and the heartbeat.

::

    STORAGE/nights/LINE/2026-11-29.json   outcome, verdict and version of the night

A night that is repeated on the same date replaces its record, unless the repetition only finds what was done.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from prefect import task

from conf import schema
from conf.text import format_duration, logger
from infra import store
from infra.store.json_objects import read_object
from models.results import Registered
from tasks import policy
from tasks.nights import alerts
from tasks.nights.line import SKIPPED
from tasks.registry.gate import REFUSED
from tasks.registry.promote import EARLIER
from tasks.registry.verdict import WAITING

log = logger()
SKIPS_PER_ALERT = 3
ATTENTION = {REFUSED: "refused", WAITING: "waits for approval"}  # outcomes that cause an alert, and its first words


@task(task_run_name="report the night of {result.name}", **policy.BOOKKEEPING)
async def report_night(config: schema.Config, result: Registered) -> None:
    """Records the result of a night; sends an alert if it was refused, waits, or is the third skip in a row.

    Raises:
        TransientError: The store does not respond; the same call resumes later.
    """
    await asyncio.to_thread(_report_night, config, result, datetime.now().astimezone())
    await asyncio.to_thread(alerts.beat, config.nightly.alerts, "", result.verdict)


@task(task_run_name="report the failure of the night", **policy.BOOKKEEPING)
async def report_failure(config: schema.Config, error: str) -> None:
    """Sends an alert about a night that has failed.

    Args:
        config: Configuration of the night.
        error: Kind and first line of the error.
    """
    await asyncio.to_thread(alerts.send, config.nightly.alerts, alerts.title(config, error))
    await asyncio.to_thread(alerts.beat, config.nightly.alerts, "/fail", error)


@task(task_run_name="report the start of the night", **policy.BOOKKEEPING)
async def report_start(config: schema.Config, expected: datetime | None) -> None:
    """Sends an alert if a night starts later than ``nightly.alerts.late_minutes`` after its scheduled time.

    Args:
        config: Configuration of the night.
        expected: Scheduled time; None for a night that nobody scheduled.
    """
    await asyncio.to_thread(alerts.beat, config.nightly.alerts, "/start")
    line = describe_delay(expected, datetime.now(UTC), config.nightly.alerts.late_minutes)
    if line is not None:
        log.warning("%s", line)
        await asyncio.to_thread(alerts.send, config.nightly.alerts, alerts.title(config, line))


def describe_delay(expected: datetime | None, now: datetime, limit_minutes: float) -> str | None:
    """Says by how much a night is late; None if it is not."""
    if expected is None or (delay := now - expected) <= timedelta(minutes=limit_minutes):
        return None
    return f"late: it starts {format_duration(delay.total_seconds())} after {expected.isoformat(' ', 'minutes')}"


def _report_night(config: schema.Config, result: Registered, now: datetime) -> None:
    is_repeated = result.outcome == SKIPPED or result.verdict.startswith(EARLIER)
    outcome = SKIPPED if is_repeated else result.outcome
    folder = store.join(config.storage, "nights", result.name)
    uri = store.join(folder, f"{now:%Y-%m-%d}.json")
    if is_repeated and store.exists(uri):
        return
    store.write_json(uri, {"outcome": outcome, "verdict": result.verdict, "version": result.version})
    if event := ATTENTION.get(outcome):
        ref = f"{result.name}/{result.version}"
        alerts.send(config.nightly.alerts, alerts.title(config, f"{event}: {ref}: {result.verdict}"))
    skips = _count_skips(folder)
    if skips and skips % SKIPS_PER_ALERT == 0:
        alerts.send(config.nightly.alerts, alerts.title(config, f"skipped {skips} times in a row: {result.verdict}"))


def _count_skips(folder: str) -> int:
    """The number of nights since the last one that trained."""
    count = 0
    for uri in reversed(store.list_uris(folder)):
        if read_object(uri, outcome=str)["outcome"] != SKIPPED:
            break
        count += 1
    return count
