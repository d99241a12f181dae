"""``effnet nightly --schedule``, ``--pause`` and ``--show``: when nights are started, and with which settings."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

from flows.cli.command import Command, show
from flows.cli.services import connect
from infra.errors import ConfigError
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
    _show(command, schedule, [time.isoformat(" ", "minutes") for time in schedules.upcoming(api)])
    return 0


def _check(cron: str, timezone: str | None) -> None:
    """Refuses before a server is needed what Prefect would refuse."""
    from prefect.client.schemas.schedules import CronSchedule

    if timezone is not None:
        schedules.check_timezone(timezone)
    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise schedules.refuse_cron(cron) from error


def _show(command: Command, schedule: schedules.Schedule, upcoming: list[str]) -> None:
    if command.json:
        print(json.dumps(asdict(schedule) | {"upcoming": upcoming}, indent=2))
        return
    show(f"schedule   {schedule.cron} {schedule.timezone}{'' if schedule.active else ' (paused)'}")
    show(f"settings   {' '.join(schedule.overrides) or 'those of effnet up'}")
    show(f"next       {', '.join(upcoming) or 'none'}")
    if stack.status(command.run_dir, command.config.services)["worker"] == "not running":
        show("worker     not running: nights start only while Prefect and its worker run (effnet up)")
