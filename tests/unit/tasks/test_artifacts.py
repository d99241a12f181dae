"""Progress in Prefect: nothing that goes wrong with it reaches the job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest

from tasks import artifacts

STATUS: dict[str, Any] = {"step": 1, "steps": 4}


def describe(status: Mapping[str, Any]) -> str:
    return f"step {status['step']}"


class Page:
    """What Prefect is sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, delay_s: float = 0.0) -> None:
        self.sent: list[tuple[float, str]] = []
        self.error, self.delay_s = error, delay_s
        monkeypatch.setattr(artifacts, "_is_in_flow_run", lambda: True)
        monkeypatch.setattr(artifacts, "UPDATE_S", 0.05)
        monkeypatch.setattr(artifacts, "_FIRST_S", 0.05)
        monkeypatch.setattr(artifacts, "acreate_progress_artifact", self.create)
        monkeypatch.setattr(artifacts, "aupdate_progress_artifact", self.update)

    async def create(self, percent: float, key: str, description: str) -> UUID:
        self.key = key
        await self.update(uuid4(), percent, description)
        return uuid4()

    async def update(self, _: UUID, percent: float, description: str) -> None:
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        self.sent.append((percent, description))


async def _train(statuses: list[dict[str, Any]], step_s: float = 0.2) -> None:
    async with artifacts.show_progress("train-b0-my_Set.v1-12ab", lambda: statuses[0], describe, ""):
        while len(statuses) > 1:
            await asyncio.sleep(step_s)
            del statuses[0]


def test_a_job_is_one_artifact_that_ends_at_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch)
    asyncio.run(_train([{"state": "running"}, STATUS, {**STATUS, "step": 2}, {**STATUS, "step": 4}]))
    assert page.sent == [(25.0, "step 1"), (50.0, "step 2"), (100.0, "step 4")]
    assert page.key == "train-b0-my-set-v1-12ab"


def test_a_status_that_does_not_change_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch)
    asyncio.run(_train([STATUS, dict(STATUS)], 0.4))
    assert page.sent == [(25.0, "step 1")]


def test_a_prefect_that_refuses_does_not_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch, error=ConnectionError("503"))
    asyncio.run(_train([STATUS, {**STATUS, "step": 4}]))
    assert page.sent == []


def test_a_prefect_that_hangs_delays_the_end_of_a_job_by_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    Page(monkeypatch, delay_s=60)
    monkeypatch.setattr(artifacts, "_LAST_S", 0.3)
    began = time.monotonic()
    asyncio.run(_train([STATUS, STATUS]))
    assert time.monotonic() - began < 20


def test_an_error_of_the_job_comes_through_and_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Page(monkeypatch, delay_s=60)

    async def fail() -> None:
        async with artifacts.show_progress("key", lambda: STATUS, describe, ""):
            await asyncio.sleep(0.2)
            raise ValueError("the job's own")

    began = time.monotonic()
    with pytest.raises(ValueError, match="the job's own"):
        asyncio.run(fail())
    assert time.monotonic() - began < 20


def test_outside_of_a_flow_run_nothing_is_read_or_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def train() -> None:
        async with artifacts.show_progress("key", lambda: pytest.fail("read"), describe, ""):
            await asyncio.sleep(0.2)

    monkeypatch.setattr(artifacts, "_FIRST_S", 0.05)
    asyncio.run(train())


async def _hang() -> None:
    await asyncio.sleep(60)


async def _refuse() -> None:
    raise ConnectionError("503")


def test_a_request_that_hangs_or_fails_is_a_warning_and_costs_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(artifacts, "_ATTEMPT_S", 0.1)
    with caplog.at_level("WARNING", "effnet"):
        asyncio.run(artifacts.attempt(_hang()))
        asyncio.run(artifacts.attempt(_refuse()))
    assert [record.getMessage() for record in caplog.records] == [
        "an artifact is missing in Prefect, which does not accept it within 0 s",
        "an artifact is missing in Prefect: 503",
    ]


def test_the_outcomes_of_the_nights_of_a_line_are_artifacts_of_one_key_with_the_verdict_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[str, str]] = []

    async def create(markdown: str, key: str, description: str) -> None:
        assert description == "The night of B0_pets.v1"
        sent.append((key, markdown))

    monkeypatch.setattr(artifacts, "acreate_markdown_artifact", create)
    asyncio.run(artifacts.show_outcome("B0_pets.v1", "tied", "outside of a flow run"))
    monkeypatch.setattr(artifacts, "_is_in_flow_run", lambda: True)
    asyncio.run(artifacts.show_outcome("B0_pets.v1", "refused", "class 'a|b' <is> *worse*"))
    assert sent == [("night-b0-pets-v1", "# refused\n\nclass 'a\\|b' \\<is\\> \\*worse\\*\n")]
