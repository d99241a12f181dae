"""The report page, rendered again from the last reproduction and the experiments that have left their part."""

from __future__ import annotations

from prefect import flow

from conf.compose import compose
from tasks.report import refresh


@flow(name="report")
async def report(overrides: list[str]) -> str:
    """Renders ``report.html`` from what lies in the store; returns its path."""
    return await refresh(compose(overrides))
