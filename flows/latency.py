"""Inference latency of B1 and B4 beside their rivals on this machine's CPU; paper Table 4."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.configure import configure, name_runs_by
from tasks.latency import measure_latency


@flow(name="latency", flow_run_name=name_runs_by(lambda config, _: f"latency {config.profile}"))
async def latency(overrides: list[str]) -> dict[str, Any]:
    """Measures all networks of ``latency.pairs`` in one run.

    Returns:
        The report's part ``latency``.
    """
    config, _ = configure(overrides)
    return await measure_latency(config)
