"""The schedule of the deployment ``nightly``: a cron expression in a time zone, kept by the Prefect server.

Prefect computes the times in the zone, so that each night has exactly one time, also those in which daylight-saving
time begins or ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from infra.errors import ConfigError
from infra.services.prefect_api import PrefectApi, request

DEPLOYMENT = "/deployments/name/nightly/nightly"
_SHOWN = 3  # upcoming nights


@dataclass(frozen=True)
class Schedule:
    """When nights start, and with which settings.

    Attributes:
        cron: Cron expression of five fields.
        timezone: Name in the IANA database, e.g. ``Europe/Berlin``.
        active: Whether nights are started; otherwise the schedule is paused.
        overrides: Settings of the nights, on top of those of the worker.
    """

    cron: str
    timezone: str
    active: bool
    overrides: tuple[str, ...] = ()


def read(api: PrefectApi) -> Schedule:
    """Returns the schedule.

    Raises:
        ConfigError: The server has no deployment ``nightly`` with a schedule.
        TransientError: The server does not answer.
    """
    return _to_schedule(_deployment(api))


def find(api: PrefectApi) -> Schedule | None:
    """Returns the schedule, or None if the server has no deployment ``nightly`` with one.

    Raises:
        TransientError: The server does not answer.
    """
    deployment = _find_deployment(api)
    return None if deployment is None else _to_schedule(deployment)


def write(api: PrefectApi, schedule: Schedule) -> None:
    """Sets schedule and settings of the nights; nights that are planned already are planned anew.

    Raises:
        ConfigError: The cron expression or the time zone is wrong, or as ``read``.
        TransientError: The server does not answer.
    """
    check_timezone(schedule.timezone)
    deployment = _deployment(api)
    path, number = f"/deployments/{deployment['id']}", deployment["schedules"][0]["id"]
    body: dict[str, Any] = {
        "schedule": {"cron": schedule.cron, "timezone": schedule.timezone},
        "active": schedule.active,
    }
    status, _ = request(api, "PATCH", f"{path}/schedules/{number}", body, known=(422,))
    if status == 422:
        raise refuse_cron(schedule.cron)
    parameters = {**(deployment.get("parameters") or {}), "overrides": list(schedule.overrides)}
    request(api, "PATCH", path, {"parameters": parameters})


def upcoming(api: PrefectApi) -> list[datetime]:
    """Returns the times of the next nights, in the time zone of the schedule; empty if it is paused.

    Raises:
        ConfigError, TransientError: As ``read``.
    """
    deployment = _deployment(api)
    query = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "expected_start_time": {"after_": datetime.now(UTC).isoformat()},
        },
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": _SHOWN,
    }
    _, runs = request(api, "POST", "/flow_runs/filter", query)
    zone = ZoneInfo(_to_schedule(deployment).timezone)
    return [datetime.fromisoformat(run["expected_start_time"]).astimezone(zone) for run in runs]


def _deployment(api: PrefectApi) -> dict[str, Any]:
    if (deployment := _find_deployment(api)) is None:
        raise ConfigError(f"Prefect at {api.url} has no scheduled deployment 'nightly'; `effnet up` registers it")
    return deployment


def _find_deployment(api: PrefectApi) -> dict[str, Any] | None:
    status, deployment = request(api, "GET", DEPLOYMENT, known=(404,))
    return None if status == 404 or not deployment.get("schedules") else deployment


def _to_schedule(deployment: dict[str, Any]) -> Schedule:
    entry = deployment["schedules"][0]
    overrides = (deployment.get("parameters") or {}).get("overrides") or ()
    return Schedule(
        str(entry["schedule"].get("cron", "")),
        str(entry["schedule"].get("timezone") or "UTC"),
        bool(entry["active"]),
        tuple(map(str, overrides)),
    )


def refuse_cron(cron: str) -> ConfigError:
    """Returns the error of a wrong cron expression."""
    return ConfigError(
        f"{cron!r} is not a schedule: a cron expression has five fields, minute, hour, day, month and day of the week, "
        "e.g. '0 3 * * *'"
    )


def check_timezone(name: str) -> None:
    """Raises ConfigError for a name that is not in the IANA database."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"{name!r} is not a time zone; they are named as Europe/Berlin or UTC") from error
