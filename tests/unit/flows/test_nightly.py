"""The night as a flow: whatever ends it early is reported."""

from __future__ import annotations

import asyncio
import json

import pytest

from conf import schema
from conf.compose import OverrideError
from flows import configure, nightly
from infra.errors import DataError, DivergedError, PreemptedError
from tasks.nights.batch import RefusedDataError
from tasks.nights.record import Night, NightRecord


def test_a_night_whose_settings_are_wrong_is_reported_to_the_receivers_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(configure.VARIABLE, json.dumps(["nightly.alerts.webhook=NIGHT_HOOK"]))
    monkeypatch.setattr(configure, "deployment_run", lambda: "as of a worker")
    reported: list[tuple[str | None, str]] = []

    async def report(config: schema.Config, night: None, outcome: str, error: str) -> None:
        assert night is None
        reported.append((config.nightly.alerts.webhook, f"{outcome}: {error}"))

    monkeypatch.setattr(nightly, "report_failure", report)
    with pytest.raises(OverrideError):
        asyncio.run(nightly.nightly.fn(["nightly.margn=1"]))
    ((webhook, error),) = reported
    assert error.startswith("failed: no setting named 'nightly.margn'")
    assert webhook == "NIGHT_HOOK"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError(), "cancelled"),
        (PreemptedError("stopped by SIGTERM; its state is saved"), "cancelled"),
        (DivergedError("the loss is NaN"), "diverged"),
        (RefusedDataError("PSI 0.31"), "refused"),
        (DataError("a shard is damaged"), "failed"),
    ],
)
def test_a_night_that_ends_early_is_reported_with_how_it_ended(
    error: BaseException, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night("line", "uri", NightRecord("running"))
    reported: list[str] = []

    async def begin(*_: object) -> Night:
        return night

    async def end(_: schema.Config) -> None:
        raise error

    async def report(_config: schema.Config, _night: Night, how: str, text: str) -> None:
        reported.extend((how, text))

    async def show(_config: schema.Config, line: str) -> None:
        reported.append(line)

    for name, function in (
        ("report_start", begin),
        ("run_night", end),
        ("report_failure", report),
        ("show_failure", show),
    ):
        monkeypatch.setattr(nightly, name, function)
    with pytest.raises(type(error)):
        asyncio.run(nightly.nightly.fn([]))
    assert reported[0] == outcome
    assert reported[1]
    assert reported[2:] == ["line"]
