"""What public ImageNet networks see in photographs: imported from Python packages, registered, mapped.

What failure must never look like: a network that is absent from the page without a word.
"""

from __future__ import annotations

import asyncio

from prefect import flow, task

from conf import schema
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from models.results import PhotographsResult
from tasks import policy
from tasks.experiments.photographs import PublicNetwork, find_drawn, import_config, read_photographs, record_photographs
from tasks.registry.pretrained import import_published
from tasks.registry.register import fetch_registered


@flow(name="photographs", flow_run_name=name_runs_by(lambda config: f"photographs {config.profile}"))
@report_failures
async def photographs(overrides: list[str], profile: str | None = None) -> PhotographsResult:
    """Imports or reuses ``photographs.networks``, and maps what they see in ``photographs.images``."""
    config, _ = configure(overrides, profile=profile)
    return await map_photographs(config)


@task(task_run_name="photographs", **policy.GROUP)
async def map_photographs(config: schema.Config, parent_run: str = "") -> PhotographsResult:
    """Imports or reuses the networks and draws the maps.

    Args:
        config: Configuration of the command.
        parent_run: Parent MLflow run.

    Raises:
        ConfigError: No network, or a photograph that does not exist.
        NotFoundError: A package is not installed.
    """
    read = await read_photographs(config)
    if (drawn := await find_drawn(config, read)) is not None:
        return drawn
    networks = [await obtain_network(config, name, parent_run) for name in config.photographs.networks]
    return await record_photographs(config, read, networks, parent_run)


async def obtain_network(config: schema.Config, name: str, parent_run: str = "") -> PublicNetwork:
    """One packaged network from the registry, where it is imported unless it was."""
    imported = await import_published(await asyncio.to_thread(import_config, config, name), parent_run)
    model, weights, exact = await fetch_registered(f"{imported.name}/{imported.version}", config.storage)
    return PublicNetwork(name, exact, model, weights)
