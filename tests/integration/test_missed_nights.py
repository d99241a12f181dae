"""Nights that the schedule has missed, and nights that overlap, on a real Prefect server and worker."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from night_rig import add_images, alert_sink, night_settings, register_base, register_deployments

from conf.overrides import replace
from conf.schema import Services
from flows.__main__ import main
from infra.services import processes, stack
from infra.services.prefect_api import from_environment, request
from infra.services.stack import Addresses
from infra.tracking import registry

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE, LINE = "s3://effnet/missed-nights", "missed-base-grown"
PATIENCE_S = 240.0
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def call(method: str, path: str, body: Any = None) -> Any:
    return request(from_environment(os.environ), method, path, body)[1]


def nights() -> list[dict[str, Any]]:
    """The planned, running and ended nights, the earliest first."""
    query = {"deployments": {"name": {"any_": ["nightly"]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return list(call("POST", "/flow_runs/filter", query))


def wait_for_nights(count: int, services_dir: Path, *states: str) -> list[dict[str, Any]]:
    """The first ``count`` nights, when all of them are in one of the states."""
    deadline = time.monotonic() + PATIENCE_S
    while len(first := nights()[:count]) < count or not all(run["state_type"] in states for run in first):
        if time.monotonic() > deadline:
            log = processes.log_tail(services_dir / "services", "worker", 60)
            pytest.fail(f"{[(run['name'], run['state']) for run in first]}\n{log}")
        time.sleep(0.5)
    return first


def miss(run: dict[str, Any], days: int, services_dir: Path) -> None:
    """Moves a planned night into the past, as if server or worker had not run since."""
    past = datetime.now(UTC) - timedelta(days=days)
    state = {"type": "SCHEDULED", "name": "Late", "state_details": {"scheduled_time": past.isoformat()}}
    call("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    database = next((services_dir / "services" / "prefect").rglob("prefect.db"))
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        text = past.strftime("%Y-%m-%d %H:%M:%S.%f")
        connection.execute("UPDATE flow_run SET expected_start_time = ? WHERE id = ?", (text, run["id"]))


@pytest.fixture
def alerts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    with alert_sink() as sink:
        yield sink


@pytest.mark.slow
def test_of_missed_nights_one_runs_and_reports_that_it_is_late_and_an_overlapping_one_is_cancelled(
    services: Addresses, services_dir: Path, tmp_path: Path, alerts: tuple[str, list[str]]
) -> None:
    url, texts = alerts
    stack.down(services_dir, only=["worker"])
    register_deployments(services_dir)
    for run in nights():  # of other tests
        call("DELETE", f"/flow_runs/{run['id']}")
    add_images(tmp_path / "images", 0, 240)
    base = register_base("missed-base", STORAGE, tmp_path / "base")
    settings = replace(night_settings(base, tmp_path / "images", STORAGE), [f"nightly.alerts.webhook={url}"])
    far = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"  # no night starts by itself while the test runs
    words = ["--schedule", far, "--timezone", "UTC", *settings, f"run_dir={services_dir}"]
    assert main(["nightly", *words]) == 0
    planned = wait_for_nights(3, services_dir, "SCHEDULED")
    for run, days in zip(planned, (3, 2, 1), strict=True):
        miss(run, days, services_dir)

    stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=("worker",))
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not any(run["state_type"] == "RUNNING" for run in nights()[:3]):
            assert time.monotonic() < deadline, [run["state"] for run in nights()[:3]]
            time.sleep(0.2)
        deployment = call("GET", "/deployments/name/nightly/nightly")
        body = {"state": {"type": "SCHEDULED"}, "parameters": {"overrides": settings}}
        overlapping = call("POST", f"/deployments/{deployment['id']}/create_flow_run", body)["id"]
        ended = wait_for_nights(4, services_dir, *ENDED)
    finally:
        stack.down(services_dir, only=["worker"])
    states = [run["state_type"] for run in ended]
    assert sorted(states) == ["CANCELLED"] * 3 + ["COMPLETED"], [run["state"] for run in ended]
    ran = next(run["id"] for run in ended if run["state_type"] == "COMPLETED")
    shown = {
        one["key"]: one["data"] for one in call("POST", "/artifacts/filter", {"flow_runs": {"id": {"any_": [ran]}}})
    }
    assert shown[f"night-{LINE}"].startswith("# promoted\n")
    assert f"/models/{LINE}/versions/1" in shown["registered-model"]
    assert f"/artifacts/report/night-{LINE}.html" in shown["night-page"]
    assert next(run for run in ended if run["id"] == overlapping)["state_type"] == "CANCELLED"
    messages = {run["state"]["message"] for run in ended if run["state_type"] == "CANCELLED"}
    assert all("concurrency limit" in message and "\n" not in message for message in messages), messages
    assert [version.version for version in registry.versions(LINE)] == [1]
    assert len(texts) == 1
    assert re.search(r"late: it starts ([123] d|(24|48|72) h)", texts[0]), texts  # which one runs, Prefect decides
