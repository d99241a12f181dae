"""``effnet nightly --schedule``, ``--pause``, ``--show``: when nights start, with which settings, and the last ones."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict, replace

from flows.cli.command import Command, show
from flows.cli.services import connect
from infra.errors import ConfigError, EffnetError, first_line
from infra.services import prefect_api, stack
from infra.services import schedule as schedules


def manage(command: Command) -> int:
    """Changes the schedule of the nights as the options say, and prints it."""
    from flows import configure

    options, switches = command.options, command.switches
    if "timezone" in options and "schedule" not in options:
        raise ConfigError("--timezone is the time zone of --schedule CRON; give both")
    if len(given := sorted({*switches, *({"schedule"} & options.keys())})) > 1:
        raise ConfigError(f"--{' and --'.join(given)} exclude each other")
    if "schedule" in options:
        _check(options["schedule"], options.get("timezone"))
    connect(command, "prefect")
    api = prefect_api.from_environment(os.environ)
    schedule = schedules.read(api)
    if "schedule" in options:
        overrides = configure.settings_of_worker_runs(command.overrides) or schedule.overrides
        zone = options.get("timezone", schedule.timezone)
        schedule = schedules.Schedule(options["schedule"], zone, True, tuple(overrides))
        schedules.write(api, schedule)
    elif "pause" in switches:
        schedule = replace(schedule, active=False)
        schedules.write(api, schedule)
    upcoming = [time.isoformat(" ", "minutes") for time in schedules.upcoming(api)]
    last, fault = _read_last(command, schedule) if "show" in switches else ({}, "")
    _show(command, schedule, upcoming, last, fault)
    return 0


def _check(cron: str, timezone: str | None) -> None:
    """Refuses before a server is needed what Prefect would refuse, and what it would take although it is a mistake.

    It takes a sixth field for seconds, in each of which a night would start, and its scheduler fails at a day that
    never comes.
    """
    from prefect.server.schemas.schedules import CronSchedule

    if timezone is not None:
        schedules.check_timezone(timezone)
    if len(cron.split()) > 5:
        raise schedules.refuse_cron(cron)
    try:
        schedule = CronSchedule(cron=cron)
    except ValueError as error:
        raise schedules.refuse_cron(cron) from error
    try:
        asyncio.run(schedule.get_dates(1))
    except ValueError as error:  # CroniterBadDateError, which is private
        raise ConfigError(f"--schedule {cron!r}: no year has such a day, so that no night would start") from error


def _read_last(command: Command, schedule: schedules.Schedule) -> tuple[dict[str, dict[str, str]] | None, str]:
    """The last night of each line: its date, outcome and reason; None, and why, if they cannot be read."""
    from tasks.nights import record

    words = [word for word in (*schedule.overrides, *command.overrides) if word.startswith("storage=")]
    storage = words[-1].partition("=")[2] if words else command.config.storage
    services = command.config.services
    try:
        if services.s3 == "embedded" != services.prefect:
            raise ConfigError("the nights of this server are in its own object store: give services.s3=URL too")
        connect(command, "s3")
        newest = [
            (line, *night) for line in record.list_lines(storage) for night in record.read_nights(storage, line, 1)
        ]
    except EffnetError as error:
        return None, first_line(error)
    return {line: {"date": date, "outcome": one.outcome, "verdict": one.verdict} for line, date, one in newest}, ""


def _show(
    command: Command,
    schedule: schedules.Schedule,
    upcoming: list[str],
    last: dict[str, dict[str, str]] | None,
    fault: str,
) -> None:
    if command.json:
        nights = {"upcoming": upcoming, "last": last, **({"last_unknown": fault} if fault else {})}
        print(json.dumps(asdict(schedule) | nights, indent=2))
        return
    if last is None:
        show(f"last       unknown: {fault}")
    show(f"schedule   {schedule.cron} {schedule.timezone}{'' if schedule.active else ' (paused)'}")
    show(f"settings   {' '.join(schedule.overrides) or 'those of effnet up'}")
    show(f"next       {', '.join(upcoming) or 'none'}")
    for line, night in (last or {}).items():
        show(f"last       {line} {night['date']} {night['outcome']}: {night['verdict']}")
    if stack.status(command.run_dir, command.config.services)["worker"] == "not running":
        show("worker     not running: nights start only while Prefect and its worker run (effnet up)")
