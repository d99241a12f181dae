"""The part of the report that shows the nights of a line: read from their records, the registry and the audit chain."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from conf.text import first_line, logger
from infra import store
from infra.errors import ArtifactError
from infra.machine import format_utc
from models.results import ShardResult
from models.results.nights import ChampionChange, NightOutcome, NightsResult, NightVersion
from tasks import policy
from tasks.artifacts import link_night
from tasks.nights import history
from tasks.registry.verdict import REASON, STATE
from tasks.report import results as report_results
from tasks.report.page import night_file
from tasks.report.publish import FOLDER, render_again

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.tracking.registry import Version

log = logger()
SHOWN = 30  # newest nights, versions and moves


@task(task_run_name="nights of {line}", **policy.BOOKKEEPING)
async def publish_nights(config: schema.Config, line: str, shards: ShardResult) -> tuple[str, str]:
    """Publishes the part of a line, and renders the report again.

    Returns:
        The path of the page of the line on this machine, and the MLflow run that has a copy.
    """
    return await asyncio.to_thread(publish_page, config, line, shards)


async def show_night(config: schema.Config, line: str, shards: ShardResult) -> str:
    """As ``publish_nights``, of a night that is recorded: what cannot be published is logged, and the path is empty."""
    try:
        page, run = await publish_nights(config, line, shards)
    except Exception as error:  # noqa: BLE001 - the night has succeeded, and its record says so
        log.warning("the page of the night is not renewed, the next night renews it: %s", first_line(error))
        return ""
    await link_night(run, f"{FOLDER}/{night_file(line)}")
    return page


async def show_failure(config: schema.Config, line: str) -> None:
    """As ``publish_nights``, of a night that has failed; what cannot be published is logged. Raises nothing."""
    try:
        page, run = await asyncio.to_thread(publish_page, config, line, None)
        log.info("the page of the night: %s", page)
        await link_night(run, f"{FOLDER}/{night_file(line)}")
    except Exception as error:  # noqa: BLE001 - the error of the night matters more
        log.warning("the page of the night is not renewed: %s", first_line(error))


def publish_page(config: schema.Config, line: str, shards: ShardResult | None) -> tuple[str, str]:
    """As ``publish_nights``; without shards the name of the data set alone is stated."""
    result = replace(
        describe_line(config.storage, line),
        data=config.transfer.data.name if shards is None else shards.name,
        command=f"effnet nightly profile={config.profile}" if config.profile else "effnet nightly",
    )
    data = report_results.digests([] if shards is None else [shards])
    part = report_results.publish_part(config, "nights", result, data)
    # Which no night of another line replaces.
    store.write(report_results.line_uri(config, line), json.dumps(part, indent=1).encode())
    page, run = render_again(config)
    return str(Path(page).with_name(night_file(line))), run


def describe_line(storage: str, line: str) -> NightsResult:
    """Returns the last nights of a line, its newest versions and the newest moves of its champion.

    A damaged audit chain is named in ``missing``: the versions are shown nevertheless.
    """
    from infra.tracking import champions, registry

    versions = registry.versions(line)
    missing: tuple[str, ...] = ()
    try:
        moves = champions.read_history(storage, line)
    except ArtifactError as error:
        moves, missing = [], (str(error),)
    nights = tuple(
        NightOutcome(date=date, outcome=one.outcome, verdict=one.verdict, version=one.version, finished=one.finished)
        for date, one in history.read_nights(storage, line, SHOWN)
    )
    return NightsResult(
        line=line,
        verdict=describe_outcome(nights[0]) if nights else "",
        nights=nights,
        versions=tuple(_describe_version(version) for version in reversed(versions[-SHOWN:])),
        versions_total=len(versions),
        moves=tuple(
            ChampionChange(old=move.old, new=move.new, when=move.when, who=move.who, why=move.why)
            for move in reversed(moves[-SHOWN:])
        ),
        moves_total=len(moves),
        missing=missing,
    )


def describe_outcome(night: NightOutcome) -> str:
    """The outcome of a night in words; the verdict of the gate begins with it already."""
    return f"{night.outcome}: {night.verdict}" if night.outcome in history.UNSUCCESSFUL else night.verdict


def _describe_version(version: Version) -> NightVersion:
    from infra.tracking import queries, registry, runs

    aliases = registry.resolve_version(f"{version.name}/{version.version}").aliases  # MLflow's search leaves them empty
    tags, parent = version.tags, queries.read_run(version.run_id).tags.get("parent", "")
    compared_with, n_val = _number(tags, "compared_with"), _number(tags, "val_n")
    return NightVersion(
        version=version.version,
        registered=format_utc(version.created),
        parent=parent,
        aliases=aliases,
        top1=_number(tags, "top1"),
        n_val=None if n_val is None else int(n_val),
        compared_with=None if compared_with is None else int(compared_with),
        difference=_number(tags, "compared_difference"),
        lower_bound=_number(tags, "compared_lower_bound"),
        verdict=tags.get(STATE, ""),
        reason=tags.get(REASON, ""),
        mlflow_url=runs.run_url(version.run_id),
    )


def _number(tags: Mapping[str, str], key: str) -> float | None:
    """The number of a tag; None if it is missing or was changed by hand to something else."""
    try:
        return float(tags[key])
    except (KeyError, ValueError):
        return None
