"""The report page, rendered again from the last reproduction and the experiments that have left their part."""

from __future__ import annotations

from prefect import flow

from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from tasks.report.publish import refresh


@flow(name="report", flow_run_name=name_runs_by(lambda config: f"report {config.profile}"))
@report_failures
async def report(overrides: list[str], profile: str | None = None) -> str:
    """Renders ``report.html`` from what lies in the store; returns its path."""
    config, _ = configure(overrides, profile=profile)
    return await refresh(config)
