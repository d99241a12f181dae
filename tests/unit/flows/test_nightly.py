"""The night as a flow: whatever ends it early is reported."""

from __future__ import annotations

import asyncio
import json

import pytest

from conf import schema
from conf.compose import OverrideError
from flows import configure, nightly


def test_a_night_whose_settings_are_wrong_is_reported_to_the_receivers_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(configure.VARIABLE, json.dumps(["nightly.alerts.webhook=NIGHT_HOOK"]))
    monkeypatch.setattr(configure, "deployment_run", lambda: "as of a worker")
    reported: list[tuple[str | None, str]] = []

    async def report(config: schema.Config, error: str) -> None:
        reported.append((config.nightly.alerts.webhook, error))

    monkeypatch.setattr(nightly, "report_failure", report)
    with pytest.raises(OverrideError):
        asyncio.run(nightly.nightly.fn(["nightly.margn=1"]))
    ((webhook, error),) = reported
    assert error.startswith("failed: no setting named 'nightly.margn'")
    assert webhook == "NIGHT_HOOK"
