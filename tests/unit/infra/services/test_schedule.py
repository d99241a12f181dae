"""Prefect's own schedule in a time zone, over the nights in which daylight-saving time begins and ends."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from prefect.server.schemas.schedules import CronSchedule

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize("cron", ["0 3 * * *", "30 2 * * *"])  # 02:30 does not exist in March, and twice in October
@pytest.mark.parametrize("change", ["2027-03-28", "2026-10-25"])
def test_a_night_in_which_the_clocks_change_has_one_run(cron: str, change: str) -> None:
    day = datetime.fromisoformat(change).replace(tzinfo=BERLIN)
    schedule = CronSchedule(cron=cron, timezone="Europe/Berlin")
    planned = asyncio.run(schedule.get_dates(5, start=day - timedelta(days=2)))
    days = [time.astimezone(BERLIN).date() for time in planned]
    assert days == [(day + timedelta(days=offset)).date() for offset in range(-2, 3)]


def test_three_in_the_morning_is_so_in_summer_and_in_winter() -> None:
    schedule = CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin")
    planned = asyncio.run(schedule.get_dates(300, start=datetime(2026, 9, 1, tzinfo=BERLIN)))
    assert {time.astimezone(BERLIN).strftime("%H:%M") for time in planned} == {"03:00"}
