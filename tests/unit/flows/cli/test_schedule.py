"""The schedule of the nights without a server: what is refused, and where the last nights are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conf import compose, schema
from flows import configure
from flows.__main__ import main
from flows.cli import schedule
from flows.cli.command import Command
from infra import store
from infra.errors import ConfigError
from infra.services import schedule as schedules
from tasks.nights import alerts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedule", "at three"], "'at three' is not a schedule: a cron expression has five fields"),
        (["--schedule", "61 3 * * *"], "'61 3 * * *' is not a schedule"),
        (["--schedule", "0 3 * * * *"], "'0 3 * * * *' is not a schedule: a cron expression has five fields"),
        (["--schedule", "0 3 30 2 *"], "--schedule '0 3 30 2 *': no year has such a day"),
        (["--schedule", "0 3 * * *", "--timezone", "Berlin"], "'Berlin' is not a time zone"),
    ],
)
def test_a_wrong_schedule_is_refused_before_a_server_is_needed(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    assert main(["nightly", *words, f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def command(tmp_path: Path, *words: str, as_json: bool = False) -> Command:
    return Command("nightly", (), [*words], compose.compose([*words, f"run_dir={tmp_path}"]), json=as_json)


def test_the_last_nights_are_read_from_the_storage_that_the_schedule_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "connect", lambda *_: {})
    for name, outcome in (("a", "tied"), ("b", "promoted")):
        uri = f"file://{tmp_path}/{name}/nights/b0-pets/2026-11-29.json"
        store.write_json(uri, {"outcome": outcome, "verdict": "why"})
    store.write(f"file://{tmp_path}/a/nights/b3-pets/2026-11-29.json", b"damaged")
    plan = schedules.Schedule("0 3 * * *", "UTC", True, (f"storage=file://{tmp_path}/a",))
    tied = {"b0-pets": {"date": "2026-11-29", "outcome": "tied", "verdict": "why"}}
    assert schedule._read_last(command(tmp_path), plan.overrides) == (tied, "")
    last, _ = schedule._read_last(command(tmp_path, f"storage=file://{tmp_path}/b"), plan.overrides)
    assert last is not None
    assert last["b0-pets"]["outcome"] == "promoted", "a word of the command has precedence"


@pytest.mark.parametrize("as_json", [True, False])
def test_the_last_nights_of_another_server_need_its_object_store(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = schedules.Schedule("0 3 * * *", "UTC", True)
    shown = command(tmp_path, "services.prefect=https://prefect.example/api", as_json=as_json)
    last, fault = schedule._read_last(shown, plan.overrides)
    assert (last, fault.endswith("give services.s3=URL too")) == (None, True)
    schedule._show(shown, plan, [], last, fault)
    output = capsys.readouterr().out
    if as_json:
        assert (json.loads(output)["last"], json.loads(output)["last_unknown"]) == (None, fault)
    else:
        assert f"last       unknown: {fault}\n" in output


@pytest.mark.parametrize("as_json", [True, False])
def test_nights_without_a_schedule_are_shown_since_cron_may_have_started_them(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schedule, "connect", lambda *_: {})
    monkeypatch.setattr(schedules, "request", lambda *_, **__: (404, {"detail": "Deployment not found"}))
    storage = f"file://{tmp_path}/store"
    store.write_json(f"{storage}/nights/b0-pets/2026-11-29.json", {"outcome": "promoted", "verdict": "why"})
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    shown = replace(command(tmp_path, f"storage={storage}", as_json=as_json), switches=frozenset({"show"}))
    assert schedule.manage(shown) == 0
    output = capsys.readouterr().out
    if as_json:
        assert json.loads(output)["last"]["b0-pets"]["outcome"] == "promoted"
        assert json.loads(output)["cron"] is None
    else:
        assert output.splitlines() == [
            "schedule   none: Prefect has no deployment 'nightly' with one; `effnet up` registers it",
            "last       b0-pets 2026-11-29 promoted: why",
        ]


def test_the_outcome_of_a_night_is_said_once_where_its_verdict_begins_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = {
        "a": {"date": "2026-11-29", "outcome": "skipped", "verdict": "skipped: no new data"},
        "b": {"date": "2026-11-29", "outcome": "refused", "verdict": "PSI 0.31"},
        "c": {"date": "2026-11-29", "outcome": "promoted", "verdict": "difference +11.24: promoted"},
    }
    schedule._show(command(tmp_path), schedules.Schedule("0 3 * * *", "UTC", True), [], nights, "")
    lines = capsys.readouterr().out.splitlines()
    assert "last       a 2026-11-29 skipped: no new data" in lines
    assert "last       b 2026-11-29 refused: PSI 0.31" in lines
    assert "last       c 2026-11-29 difference +11.24: promoted" in lines


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The webhooks that a test alert is sent to; the one at `broken` does not answer."""
    webhooks: list[str | None] = []

    def try_receivers(receivers: schema.Alerts, text: str) -> dict[str, str]:
        assert "effnet nightly efficientnet-b0 on digits (" in text
        webhooks.append(receivers.webhook)
        return {"nightly.alerts.webhook": "it answers 500" if receivers.webhook == "BROKEN" else ""}

    monkeypatch.setattr(alerts, "try_receivers", try_receivers)
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    return webhooks


def test_a_test_alert_is_sent_to_the_receivers_of_the_command_and_names_those_that_fail(
    tried: list[str | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = f"run_dir={tmp_path}"
    assert main(["nightly", "--test-alert", "nightly.alerts.webhook=HOOK", run_dir]) == 0
    assert capsys.readouterr().out == "nightly.alerts.webhook has the alert\n"
    assert main(["nightly", "--test-alert", "nightly.alerts.webhook=BROKEN", run_dir]) == 1
    assert capsys.readouterr().out == "nightly.alerts.webhook has not taken the alert: it answers 500\n"
    assert tried == ["HOOK", "BROKEN"]
    assert main(["nightly", "--test-alert", run_dir]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no receiver is given, and the schedule cannot be read: not running in ")
    assert said.endswith("give nightly.alerts.webhook=URL or nightly.alerts.email.host=HOST (.sender, .to)\n")


def test_without_receivers_in_the_command_a_test_alert_goes_to_those_of_the_nights(
    tried: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = schedules.Schedule("0 3 * * *", "UTC", True, ("nightly.alerts.webhook=OF_SCHEDULE",))
    settings = ["nightly.alerts.webhook=OF_WORKER"]
    monkeypatch.setattr(schedule, "connect", lambda *_: {})
    monkeypatch.setattr(configure, "embedded_worker_settings", lambda _: settings)
    monkeypatch.setattr(schedules, "read", lambda _: plan)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    given = replace(command(tmp_path), switches=frozenset({"test-alert"}))
    assert schedule.manage(given) == 0
    plan = replace(plan, overrides=())
    assert schedule.manage(given) == 0
    assert tried == ["OF_SCHEDULE", "OF_WORKER"]
    settings.clear()
    with pytest.raises(
        ConfigError, match="neither the command nor the schedule has a receiver of alerts: give nightly"
    ):
        schedule.manage(given)
