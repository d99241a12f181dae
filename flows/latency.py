"""Inference latency of B1 and B4 beside their rivals, and of B7, on this machine's CPU; paper Table 4."""

from __future__ import annotations

from prefect import flow

from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from models.results import LatencyResult
from tasks.experiments.latency import measure_latency


@flow(name="latency", flow_run_name=name_runs_by(lambda config: f"latency {config.profile}"))
@report_failures
async def latency(overrides: list[str], profile: str | None = None) -> LatencyResult:
    """Measures all networks of ``latency.pairs`` in one run.

    Returns:
        The latency of each network, and how many times as fast as its rival it is.
    """
    config, _ = configure(overrides, profile=profile)
    return await measure_latency(config)
