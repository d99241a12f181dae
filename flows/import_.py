"""Public weights into the registry, from where evaluation, transfer and the nightly job take them."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from models.results import Registered
from tasks.artifacts import link_version
from tasks.registry.pretrained import import_published


@flow(name="import", flow_run_name=name_runs_by(lambda config: f"import {Path(config.published.path or '').name}"))
@report_failures
async def import_(overrides: list[str], profile: str | None = None) -> Registered:
    """Registers ``published.path``; the same file again finds its version."""
    config, _ = configure(overrides, profile=profile)
    registered = await import_published(config)
    await link_version(registered.name, registered.version)
    return registered
