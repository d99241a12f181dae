"""Publishes the report: files on disk, copies in the store and in MLflow, artifacts in Prefect."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact, acreate_table_artifact

from conf import schema
from infra import store
from infra.errors import ConfigError
from infra.store import files
from infra.store.json_objects import read_object
from models.results import Summary
from tasks import policy
from tasks.artifacts import attempt, link_report, link_run
from tasks.report import results as report_results
from tasks.report.page import markdown_table, night_file, render, render_night
from tasks.report.results import Stored
from tasks.report.sections.provenance import present_services

PAGE, NIGHT, SUMMARY = "report.html", "night.html", "summary.json"  # NIGHT: of the line that had the last night
LATEST = "latest"
FOLDER = "report"  # among the artifacts of an MLflow run
REPORT_FILE = f"{FOLDER}/{PAGE}"


@task(task_run_name="publish the report", **policy.BOOKKEEPING)
async def publish(config: schema.Config, summary: Summary, mlflow_run: str) -> str:
    """Writes ``summary.json`` and ``report.html`` to disk, store, MLflow and Prefect.

    The page holds the summary and the parts that other flows have published so far.

    Returns:
        The path of the page on this machine.
    """
    facts = dataclasses.asdict(summary)
    page = await asyncio.to_thread(_publish, config, facts, mlflow_run)
    table = markdown_table(summary)
    trials = [dataclasses.asdict(trial) for trial in (summary.search.trials if summary.search else ())]
    transferred = [dataclasses.asdict(row) for row in summary.transfer]
    registry = f"{summary.services['mlflow']}/#/models"
    for request in (
        acreate_markdown_artifact(table, key="reproduction", description=f"The family, profile {summary.profile}"),
        acreate_table_artifact(trials, key="grid-search", description="Trials of alpha, beta and gamma"),
        acreate_table_artifact(transferred, key="transfer", description="Fine-tuned networks"),
        acreate_link_artifact(registry, key="model-registry", link_text="MLflow registry", description="Models"),
    ):
        await attempt(request)
    await link_run(mlflow_run)
    await link_report(mlflow_run, REPORT_FILE)
    return page


def _publish(config: schema.Config, summary: Mapping[str, Any], mlflow_run: str) -> str:
    return _upload_report(config, _write_report(config, summary, report_results.load_parts(config)), mlflow_run)


@task(task_run_name="refresh the report", **policy.BOOKKEEPING)
async def refresh(config: schema.Config) -> str:
    """Renders the page again from the last reproduction's summary and the parts in the store, as far as they exist.

    Returns:
        The path of the page on this machine; copies are in the store and in the profile's MLflow run "report".

    Raises:
        ConfigError: This profile has neither a reproduction nor a part yet.
    """
    page, mlflow_run = await asyncio.to_thread(render_again, config)
    await link_report(mlflow_run, REPORT_FILE)
    return page


def render_again(config: schema.Config) -> tuple[str, str]:
    """As ``refresh``; returns the path of the page, and the MLflow run that has a copy of it."""
    from infra.tracking import runs

    uri = store.join(config.storage, "reports", config.profile, SUMMARY)
    summary = read_object(uri) if store.exists(uri) else {}
    if summary:  # a port may have moved since
        recorded = summary.get("services")
        summary["services"] = {**(recorded if isinstance(recorded, Mapping) else {}), **_used_services()}
    parts = report_results.load_parts(config)
    if not summary and not parts:
        raise ConfigError(
            f"nothing to report: neither {uri} nor a part of an experiment exists; run "
            f"`effnet reproduce profile={config.profile}` or an experiment, e.g. `effnet scaling "
            f"profile={config.profile}`"
        )
    folder = _write_report(config, summary, parts)
    commits = {name: part.provenance.commit for name, part in parts.items()}
    run = runs.start_run(
        config.experiment,
        f"report ({config.profile})",
        f"report-{config.profile}",
        params={},
        tags=commits | {"role": "report"},
    )
    page = _upload_report(config, folder, run)
    runs.finish_run(run, "FINISHED", {})
    return page, run


def _used_services() -> dict[str, str]:
    return {name: address for name, address in present_services().items() if address}


def _write_report(config: schema.Config, summary: Mapping[str, Any], parts: Mapping[str, Stored]) -> Path:
    """Writes the page and the JSON of any summary to a new folder, and points ``runs/latest`` at it."""
    reports = Path(config.run_dir).resolve() / "reports"
    reproduction = report_results.read_stored(Summary, summary, SUMMARY) if summary else None
    lines = report_results.load_lines(config)
    pages = {PAGE: render(reproduction, parts, lines)}
    if night := parts.get("nights"):
        pages[NIGHT] = render_night(night, lines)
    pages |= {night_file(line): render_night(night, lines) for line, night in lines.items()}
    if summary:
        pages[SUMMARY] = json.dumps(summary, indent=1)
    with files.errors(reports):
        folder = _make_folder(reports)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
        _point_latest(folder)
    return folder


def _make_folder(reports: Path) -> Path:
    """A folder named after the second, with a number where another command has made one in the same second."""
    name = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for number in itertools.count(1):
        folder = reports / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def _upload_report(config: schema.Config, folder: Path, mlflow_run: str) -> str:
    """Copies the folder's files into the store and into an MLflow run; returns the page's path."""
    from infra.tracking import runs

    for path in sorted(folder.iterdir()):
        store.upload(path, store.join(config.storage, "reports", config.profile, path.name))
        runs.log_file(mlflow_run, path, FOLDER)
    return str(folder / PAGE)


def _point_latest(folder: Path) -> None:
    """Replaces ``runs/latest`` atomically: a reader sees the old report or the new one."""
    link = folder.parent.parent / LATEST
    new_link = link.with_name(f".{LATEST}.{folder.name}")
    new_link.unlink(missing_ok=True)
    new_link.symlink_to(folder.relative_to(link.parent), target_is_directory=True)
    new_link.replace(link)
