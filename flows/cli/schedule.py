"""``effnet nightly --schedule``, ``--pause``, ``--show``: when nights start, with which settings, and the last ones.

``--test-alert`` tries the receivers of their alerts.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from flows.cli.command import Command, show
from flows.cli.services import connect
from flows.cli.working_folder import ignore_prefect_files
from infra.errors import ConfigError, EffnetError, first_line
from infra.services import prefect_api, stack
from infra.services import schedule as schedules

if TYPE_CHECKING:
    from conf.schema import Config


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
    if "test-alert" in switches:
        return _test_alerts(command)
    connect(command, "prefect")
    api = prefect_api.from_environment(os.environ)
    if "show" in switches:
        return _show_nights(command, api)
    schedule = schedules.read(api)
    if "schedule" in options:
        overrides = configure.settings_of_worker_runs(command.overrides) or schedule.overrides
        zone = options.get("timezone", schedule.timezone)
        schedule = schedules.Schedule(options["schedule"], zone, True, tuple(overrides))
        schedules.write(api, schedule)
    elif "pause" in switches:
        schedule = replace(schedule, active=False)
        schedules.write(api, schedule)
    _show(command, schedule, _read_upcoming(api), {}, "")
    return 0


def _show_nights(command: Command, api: prefect_api.PrefectApi) -> int:
    """Prints the schedule, if there is one, and the last nights, which cron may have started."""
    schedule = schedules.find(api)
    last, fault = _read_last(command, schedule.overrides if schedule else ())
    _show(command, schedule, _read_upcoming(api) if schedule else [], last, fault)
    return 0


def _read_upcoming(api: prefect_api.PrefectApi) -> list[str]:
    return [time.isoformat(" ", "minutes") for time in schedules.upcoming(api)]


def _test_alerts(command: Command) -> int:
    """Sends one alert to each receiver of the command, or else of the schedule; 1 if one of them did not take it."""
    from tasks.nights import alerts

    config = command.config
    if not alerts.has_receivers(config.nightly.alerts):
        config = _with_settings_of_nights(command)
    faults = alerts.try_receivers(config.nightly.alerts, alerts.title(config, "a test of the alerts, nothing happened"))
    if command.json:
        print(json.dumps(faults, indent=2))
    else:
        for name, fault in faults.items():
            show(f"{name} {f'has not taken the alert: {fault}' if fault else 'has the alert'}")
    return 1 if any(faults.values()) else 0


def _with_settings_of_nights(command: Command) -> Config:
    """The configuration of the nights: settings of the embedded worker, of the schedule, and of the command.

    Raises:
        ConfigError: No receiver is among them.
    """
    from conf import compose
    from flows import configure
    from tasks.nights import alerts

    remedy = "give nightly.alerts.webhook=URL or nightly.alerts.email.host=HOST (.sender, .to)"
    try:
        connect(command, "prefect")
        settings = configure.embedded_worker_settings(command.run_dir) or []
        plan = schedules.read(prefect_api.from_environment(os.environ))
    except EffnetError as error:
        raise ConfigError(
            f"no receiver is given, and the schedule cannot be read: {first_line(error)}; {remedy}"
        ) from error
    words = configure.merge(configure.merge(settings, plan.overrides), command.overrides)
    config = compose.compose(words)
    if not alerts.has_receivers(config.nightly.alerts):
        raise ConfigError(f"neither the command nor the schedule has a receiver of alerts: {remedy}")
    return config


def _check(cron: str, timezone: str | None) -> None:
    """Refuses before a server is needed what Prefect would refuse, and what it would take although it is a mistake.

    It takes a sixth field for seconds, in each of which a night would start, and its scheduler fails at a day that
    never comes.
    """
    ignore_prefect_files()
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


def _read_last(command: Command, scheduled: Sequence[str]) -> tuple[dict[str, dict[str, str]] | None, str]:
    """The last night of each line: its date, outcome and reason; None, and why, if they cannot be read."""
    from tasks.nights import history

    words = [word for word in (*scheduled, *command.overrides) if word.startswith("storage=")]
    storage = words[-1].partition("=")[2] if words else command.config.storage
    services = command.config.services
    try:
        if services.s3 == "embedded" != services.prefect:
            raise ConfigError("the nights of this server are in its own object store: give services.s3=URL too")
        connect(command, "s3")
        newest = [
            (line, *night) for line in history.list_lines(storage) for night in history.read_nights(storage, line, 1)
        ]
    except EffnetError as error:
        return None, first_line(error)
    return {line: {"date": date, "outcome": one.outcome, "verdict": one.verdict} for line, date, one in newest}, ""


def _show(
    command: Command,
    schedule: schedules.Schedule | None,
    upcoming: list[str],
    last: dict[str, dict[str, str]] | None,
    fault: str,
) -> None:
    if command.json:
        nights = {"upcoming": upcoming, "last": last, **({"last_unknown": fault} if fault else {})}
        absent: dict[str, object] = {"cron": None, "timezone": None, "active": False, "overrides": []}
        print(json.dumps((asdict(schedule) if schedule else absent) | nights, indent=2))
        return
    if last is None:
        show(f"last       unknown: {fault}")
    if schedule is None:
        show("schedule   none: Prefect has no deployment 'nightly' with one; `effnet up` registers it")
    else:
        show(f"schedule   {schedule.cron} {schedule.timezone}{'' if schedule.active else ' (paused)'}")
        show(f"settings   {' '.join(schedule.overrides) or 'those of effnet up'}")
        show(f"next       {', '.join(upcoming) or 'none'}")
    for line, night in (last or {}).items():
        verdict, outcome = night["verdict"], night["outcome"]
        has_it = verdict.startswith(outcome) or verdict.endswith(f": {outcome}")  # "skipped: no new data"
        said = verdict if has_it else f"{outcome}: {verdict}"
        show(f"last       {line} {night['date']} {said}")
    if schedule and stack.status(command.run_dir, command.config.services)["worker"] == "not running":
        show("worker     not running: nights start only while Prefect and its worker run (effnet up)")
