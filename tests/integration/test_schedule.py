"""The schedule of the nights, changed from the command line on a real Prefect server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from conf.schema import Services
from flows.__main__ import main
from infra import store
from infra.services import deployments, schedule, stack
from infra.services.prefect_api import call, from_environment
from infra.services.stack import Addresses

pytestmark = pytest.mark.services


def register(run_dir: Path) -> bool:
    return deployments.deploy(from_environment(os.environ), run_dir / "services", dict(os.environ))


@pytest.fixture(scope="module")
def run_dir(services: Addresses, services_dir: Path) -> Iterator[Path]:
    """A server with the deployments, and without a worker; none of the nights starts under other tests."""
    register(services_dir)
    yield services_dir
    api = from_environment(os.environ)
    schedule.write(api, replace(schedule.read(api), active=False))


@pytest.fixture(autouse=True)
def no_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers would remain in this process."""
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)


def test_a_schedule_is_set_shown_paused_and_kept_when_the_deployments_are_registered_again(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["data@transfer.data=folder", "transfer.data.path=images", f"run_dir={run_dir}"]
    assert main(["nightly", "--schedule", "30 2 * * 1-5", "--timezone", "Europe/Berlin", *settings]) == 0
    lines = capsys.readouterr().out.splitlines()
    path = f"transfer.data.path={tmp_path}/images"  # the worker has another working folder
    assert lines[0] == "schedule   30 2 * * 1-5 Europe/Berlin"
    assert lines[1] == f"settings   data@transfer.data=folder {path}"
    # The worker of another test file may run.
    running = stack.status(run_dir, Services())["worker"] != "not running"
    hint = "worker     not running: nights start only while Prefect and its worker run (effnet up)"
    assert lines[3:] == ([] if running else [hint])

    (tmp_path / "prefect.yaml").write_text(f"{deployments.FILE.read_text()}\n# of a later version of effnet\n")
    with monkeypatch.context() as updated:
        updated.setattr(deployments, "FILE", tmp_path / "prefect.yaml")
        assert register(run_dir)
    kept = schedule.Schedule("30 2 * * 1-5", "Europe/Berlin", True, ("data@transfer.data=folder", path))
    assert schedule.read(from_environment(os.environ)) == kept

    assert main(["nightly", "--pause", f"run_dir={run_dir}"]) == 0
    assert "schedule   30 2 * * 1-5 Europe/Berlin (paused)\n" in capsys.readouterr().out
    assert main(["nightly", "--show", "--json", f"run_dir={run_dir}"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["cron"], shown["active"], shown["upcoming"]) == ("30 2 * * 1-5", False, [])
    assert main(["nightly", "--schedule", "0 3 * * *", f"run_dir={run_dir}"]) == 0
    assert "schedule   0 3 * * * Europe/Berlin\nsettings   data@transfer.data=folder" in capsys.readouterr().out


def test_the_last_night_of_each_line_is_shown_with_its_reason(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = "s3://effnet/shown-nights"
    for date, outcome, verdict in (("2026-11-28", "promoted", "better"), ("2026-11-29", "refused", "PSI 0.31")):
        store.write_json(f"{storage}/nights/b0-pets/{date}.json", {"outcome": outcome, "verdict": verdict})
    assert main(["nightly", "--show", f"storage={storage}", f"run_dir={run_dir}"]) == 0
    assert "last       b0-pets 2026-11-29 refused: PSI 0.31\n" in capsys.readouterr().out
    assert main(["nightly", "--show", "--json", f"storage={storage}", f"run_dir={run_dir}"]) == 0
    last = json.loads(capsys.readouterr().out)["last"]
    assert last == {"b0-pets": {"date": "2026-11-29", "outcome": "refused", "verdict": "PSI 0.31"}}


def test_the_server_plans_the_next_nights(run_dir: Path) -> None:
    """With SQLAlchemy 2.1 it planned none, and only its log said so."""
    assert main(["nightly", "--schedule", "0 3 * * *", "--timezone", "Europe/Berlin", f"run_dir={run_dir}"]) == 0
    query = {
        "deployments": {"name": {"any_": ["nightly"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    deadline = time.monotonic() + 90
    planned: list[dict[str, Any]] = []
    while not planned:
        assert time.monotonic() < deadline, "no run is planned"
        time.sleep(0.5)
        planned = call(from_environment(os.environ), "POST", "/flow_runs/filter", query)[1]
    nights = [
        datetime.fromisoformat(run["expected_start_time"]).astimezone(ZoneInfo("Europe/Berlin")) for run in planned
    ]
    assert {night.hour for night in nights} == {3}
    assert len({night.date() for night in nights}) == len(nights), "one run a night"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedule", "at three"], "'at three' is not a schedule: a cron expression has five fields"),
        (
            ["--schedule", "0 3 * * *", "--timezone", "Berlin"],
            "'Berlin' is not a time zone; they are named as Europe/B",
        ),
        (["--timezone", "Europe/Berlin"], "--timezone is the time zone of --schedule CRON; give both"),
        (["--schedule", "0 3 * * *", "--pause"], "--pause and --schedule exclude each other"),
        (["--pause", "--show"], "--pause and --show exclude each other"),
    ],
)
def test_a_wrong_schedule_is_one_line_and_changes_nothing(
    words: list[str], message: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = schedule.read(from_environment(os.environ))
    assert main(["nightly", *words, f"run_dir={run_dir}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert schedule.read(from_environment(os.environ)) == before
