"""The report page of the last reproduction, rendered again."""

from __future__ import annotations

from prefect import flow

from conf.compose import compose
from tasks.report import rerender


@flow(name="report")
async def report(overrides: list[str]) -> str:
    """Renders ``report.html`` from the summary in the store; returns its path."""
    return await rerender(compose(overrides))
