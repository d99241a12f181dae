"""What is recorded of a night, and which nights cause an alert."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conf import compose
from conf.schema import Config
from infra import store
from models.results import Registered
from tasks.nights import alerts
from tasks.nights.record import _report_night, describe_delay

TONIGHT = datetime(2026, 11, 29, 3, 0, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return compose.compose([f"storage=file://{tmp_path}"])


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(alerts, "send", lambda _, text: texts.append(text))
    return texts


def night(outcome: str, verdict: str = "why") -> Registered:
    return Registered("b0-pets", 2, ("challenger",), verdict=verdict, outcome=outcome)


def test_a_night_is_recorded_by_line_and_date(config: Config, sent: list[str]) -> None:
    _report_night(config, night("promoted"), TONIGHT)
    recorded = store.read_json(f"{config.storage}/nights/b0-pets/2026-11-29.json")
    assert recorded == {"outcome": "promoted", "verdict": "why", "version": 2}
    _report_night(config, night("skipped"), TONIGHT)  # the same night again
    assert store.read_json(f"{config.storage}/nights/b0-pets/2026-11-29.json") == recorded
    assert sent == []


def test_a_refusal_is_reported_once_with_its_reason(config: Config, sent: list[str]) -> None:
    _report_night(config, night("refused", "not promoted, it is worse"), TONIGHT)
    _report_night(config, night("refused", "judged before: not promoted, it is worse"), TONIGHT + timedelta(days=1))
    (text,) = sent
    assert text.startswith("effnet nightly efficientnet-b0 on ")
    assert text.endswith(": refused: b0-pets/2: not promoted, it is worse")


def test_a_version_that_waits_for_approval_is_reported_once(config: Config, sent: list[str]) -> None:
    _report_night(config, night("waiting", "passed the gate"), TONIGHT)
    _report_night(config, night("waiting", "judged before: passed the gate"), TONIGHT + timedelta(days=1))
    (text,) = sent
    assert text.endswith(": waits for approval: b0-pets/2: passed the gate")


def test_every_third_skip_in_a_row_is_reported(config: Config, sent: list[str]) -> None:
    outcomes = ["promoted", *["skipped"] * 2, "tied", *["skipped"] * 7]
    counts = []
    for day, outcome in enumerate(outcomes):
        for _ in range(2):  # repeated on the same date
            _report_night(config, night(outcome), TONIGHT + timedelta(days=day))
        counts.append(len(sent))
    assert counts == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert sent[0].endswith(": skipped 3 times in a row: why")
    assert sent[1].endswith(": skipped 6 times in a row: why")


def test_a_night_is_late_from_the_limit_on() -> None:
    assert describe_delay(None, TONIGHT, 60) is None
    assert describe_delay(TONIGHT, TONIGHT + timedelta(minutes=60), 60) is None
    line = describe_delay(TONIGHT, TONIGHT + timedelta(hours=2, minutes=5), 60)
    assert line == "late: it starts 2 h 5 min after 2026-11-29 03:00+00:00"
