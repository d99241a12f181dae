"""The part of the report that shows the nights of a line: read from the registry and the audit chain, never counted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from infra.errors import ArtifactError
from infra.machine import format_utc
from models.results import Registered, ShardResult
from models.results.nights import ChampionChange, NightsResult, NightVersion
from tasks import policy
from tasks.registry.verdict import REASON, STATE
from tasks.report import results as report_results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.tracking.registry import Version

SHOWN = 30  # newest versions and moves


@task(task_run_name="nights of {registered.name}", **policy.BOOKKEEPING)
async def publish_nights(config: schema.Config, registered: Registered, shards: ShardResult) -> None:
    """Publishes the part of the line that ``registered`` belongs to, with its verdict as that of the last night."""
    await asyncio.to_thread(_publish, config, registered, shards)


def _publish(config: schema.Config, registered: Registered, shards: ShardResult) -> None:
    result = describe_line(config.storage, registered.name)
    result = replace(
        result,
        data=shards.name,
        verdict=registered.verdict,
        command=f"effnet nightly profile={config.profile}" if config.profile else "effnet nightly",
    )
    report_results.publish_part(config, "nights", result, report_results.digests([shards]))


def describe_line(storage: str, line: str) -> NightsResult:
    """Returns the newest versions of a registered model and the newest moves of its champion.

    A damaged audit chain is named in ``missing``: the versions are shown nevertheless.
    """
    from infra.tracking import champions, registry

    versions = registry.versions(line)
    missing: tuple[str, ...] = ()
    try:
        moves = champions.read_history(storage, line)
    except ArtifactError as error:
        moves, missing = [], (str(error),)
    return NightsResult(
        line=line,
        versions=tuple(_describe_version(version) for version in reversed(versions[-SHOWN:])),
        versions_total=len(versions),
        moves=tuple(
            ChampionChange(old=move.old, new=move.new, when=move.when, who=move.who, why=move.why)
            for move in reversed(moves[-SHOWN:])
        ),
        moves_total=len(moves),
        missing=missing,
    )


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
