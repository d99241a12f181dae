"""A long step says how far it is; a short one says nothing."""

from __future__ import annotations

import logging

import pytest

from conf import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("conf.progress.time.monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.log, "propagate", True)
    caplog.set_level(logging.INFO, "effnet")


def test_a_short_step_says_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    assert list(progress.Progress("images read", 3).count("abc")) == ["a", "b", "c"]
    assert caplog.messages == []


def test_a_long_step_says_at_intervals_how_much_is_left(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    step = progress.Progress("images read", 4000)
    for _ in range(4):
        clock[0] += 10
        step.add(1000)
    assert caplog.messages == ["2,000 of 4,000 images read, 20 s left"], "nor at its end"


def test_a_step_of_unknown_length_says_what_is_done(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    step = progress.Progress("files listed")
    for _ in step.count(range(40)):
        clock[0] += 1
    assert caplog.messages == ["15 files listed", "30 files listed"]
