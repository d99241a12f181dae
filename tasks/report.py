"""Publishing a summary: files on disk, a copy in the store and in MLflow, artifacts in Prefect."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact, acreate_table_artifact

from conf import schema
from infra import store
from infra.errors import ConfigError
from models.results import Summary
from tasks import policy
from tasks.report_page import markdown_table, render

FILES = ("summary.json", "report.html")
LATEST = "latest"


@task(task_run_name="publish the report", **policy.BOOKKEEPING)
async def publish(config: schema.Config, summary: Summary, mlflow_run: str) -> str:
    """Writes ``summary.json`` and ``report.html`` everywhere a person may look for them.

    Returns:
        The path of the page on this machine.
    """
    facts = dataclasses.asdict(summary)
    folder = await asyncio.to_thread(_write, config, facts, mlflow_run)
    await acreate_markdown_artifact(markdown_table(facts), key="reproduction", description=f"profile {summary.profile}")
    await acreate_table_artifact(summary.search.get("trials", []), key="grid-search")
    await acreate_table_artifact(summary.transfer, key="transfer")
    await acreate_link_artifact(
        f"{summary.services['mlflow']}/#/models", key="model-registry", link_text="MLflow registry"
    )
    return str(folder / "report.html")


def _write(config: schema.Config, facts: dict[str, Any], mlflow_run: str) -> Path:
    from infra import tracking

    folder = _leave(config, facts)
    for name in FILES:
        store.upload(folder / name, store.join(config.storage, "reports", config.profile, name))
        tracking.log_file(mlflow_run, folder / name, "report")
    return folder


def _leave(config: schema.Config, facts: dict[str, Any]) -> Path:
    """Writes both files into a folder of their own, then points ``runs/latest`` at it."""
    folder = Path(config.run_dir).resolve() / "reports" / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(FILES, (json.dumps(facts, indent=1), render(facts)), strict=True):
        (folder / name).write_text(text)
    _point_latest(folder)
    return folder


def _point_latest(folder: Path) -> None:
    """Moves ``runs/latest`` in one step: a reader sees the old report or the new one."""
    link = folder.parent.parent / LATEST
    fresh = link.with_name(f".{LATEST}.{folder.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.relative_to(link.parent), target_is_directory=True)
    fresh.replace(link)


@task(task_run_name="render the report", **policy.BOOKKEEPING)
async def rerender(config: schema.Config) -> str:
    """Renders the last reproduction's page again, from its summary in the store.

    Raises:
        ConfigError: there is no reproduction of this profile yet.
    """
    return await asyncio.to_thread(_rerender, config)


def _rerender(config: schema.Config) -> str:
    uri = store.join(config.storage, "reports", config.profile, "summary.json")
    if not store.exists(uri):
        raise ConfigError(f"nothing to report: {uri} is not there; run `effnet reproduce profile={config.profile}`")
    return str(_leave(config, store.read_json(uri)) / "report.html")
