"""The line of champions that a night continues: its name, the version it starts from, and the check of its data."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prefect import task

from conf import compose, schema
from conf.nightly import FIRST_VAL
from conf.text import logger
from infra import store
from infra.errors import ConfigError, DataError, PermanentError
from models.results import Registered, ShardResult
from tasks import policy
from tasks.classes import class_mismatch
from tasks.nights import data_gate
from tasks.registry.register import VAL

if TYPE_CHECKING:
    from models.data.shards.manifest import Manifest

log = logger()
SKIPPED = "skipped"


@dataclass(frozen=True)
class NightStart:
    """Where a night starts.

    Attributes:
        line: Registered model that the challenger becomes a version of.
        parent: ``NAME/VERSION`` that is fine-tuned.
        continues: Whether the parent is the champion of the line, so that its classifier is kept.
        data: Data settings of the night: those of ``transfer.data``, with the val of the line if the set grows.
    """

    line: str
    parent: str
    continues: bool
    data: schema.Data


@task(task_run_name="start of the night of {config.nightly.model}", **policy.BOOKKEEPING)
async def find_start(config: schema.Config) -> NightStart:
    """Returns the champion of the line; before the line has one, that of ``nightly.model``.

    The line is ``MODEL-DATA``, or ``nightly.model`` itself if its champion was trained on this data set. A val of
    another name than the first has a line for itself, ``MODEL-DATA-VAL``: accuracies on two vals are never compared.

    Raises:
        ConfigError: ``nightly.model`` has no champion, or its val is another one.
    """
    return await asyncio.to_thread(_find_start, config)


def _find_start(config: schema.Config) -> NightStart:
    from infra.tracking import registry

    data, model = _with_val(config), config.nightly.model
    base = registry.resolve_version(f"{model}@{registry.CHAMPION}")
    line = model if base.tags.get("dataset") == data.name else f"{model}-{data.name}"
    if data.frozen_val is not None:
        present = base.tags.get(VAL, FIRST_VAL) if line == model else FIRST_VAL
        if present != data.frozen_val and present != FIRST_VAL:
            raise ConfigError(f"{model} is the line of nightly.val={present}, not {data.frozen_val}")
        if present != data.frozen_val:
            line = f"{line}-{data.frozen_val}"
    champion = registry.champion(line)
    parent = champion or base
    return NightStart(line, f"{parent.name}/{parent.version}", champion is not None, data)


def _with_val(config: schema.Config) -> schema.Data:
    """Returns ``transfer.data`` with the val ``nightly.val``, which is frozen, if it is a set that grows."""
    from models.data.sources import catalog

    data, val = config.transfer.data, config.nightly.val
    if data.frozen_val not in (None, val):
        raise ConfigError(
            f"transfer.data.frozen_val is {data.frozen_val}, nightly.val is {val}; give nightly.val alone"
        )
    return replace(data, frozen_val=val) if catalog.find(data.source).grows else data


@task(task_run_name="new data for {start.line}", **policy.BOOKKEEPING)
async def find_reason_to_skip(start: NightStart, shards: ShardResult) -> Registered | None:
    """Returns the champion with the reason to train nothing: it was trained on the same data; None for new data.

    Raises:
        ConfigError: The data set has other classes than the champion of the line.
    """
    return await asyncio.to_thread(_find_reason_to_skip, start, shards)


def _find_reason_to_skip(start: NightStart, shards: ShardResult) -> Registered | None:
    from infra.tracking import registry

    if not start.continues:
        return None
    parent = registry.resolve_version(start.parent)
    mismatch = class_mismatch(parent, shards)
    if mismatch is not None:
        raise ConfigError(
            f"{start.parent} was trained on other classes than those of {shards.name}: {mismatch}; "
            "another transfer.data.name starts another line of champions"
        )
    if parent.tags.get("data_manifest_sha256") != shards.manifest_sha256:
        return None
    reason = f"skipped: no new data, version {parent.version} was trained on the same {shards.train} images"
    return Registered(parent.name, parent.version, parent.aliases, reused=True, verdict=reason, outcome=SKIPPED)


@task(task_run_name="check data of {start.line}", **policy.BOOKKEEPING)
async def check_data(start: NightStart, shards: ShardResult, limits: schema.Nightly) -> None:
    """Compares the data of a night with those of the champion, before anything is trained.

    Raises:
        DataError: The data violate a limit (``tasks/nights/data_gate.py``).
    """
    await asyncio.to_thread(_check_data, start, shards, limits)


def _check_data(start: NightStart, shards: ShardResult, limits: schema.Nightly) -> None:
    from models.data.shards import manifest as manifests

    new = manifests.load_verified(shards.manifest_uri, shards.manifest_sha256, shards.left_out)
    old = _load_champion_data(start.parent) if start.continues else None
    if faults := data_gate.find_faults(new, old, limits):
        raise DataError(f"the data {shards.name} are refused, nothing is trained: {'; '.join(faults)}")


def _load_champion_data(ref: str) -> Manifest | None:
    """The data set that a version was trained on; None if the store has it no more, which is logged."""
    from infra.tracking import registry
    from models.data.shards import manifest as manifests

    job_uri = registry.resolve_version(ref).tags.get("job_uri", "")
    try:
        job = compose.from_yaml(schema.Job, store.read(store.join(job_uri, "config.yaml")).decode())
        return manifests.load_verified(job.manifest_uri, job.manifest_sha256, job.leave_out)
    except (PermanentError, ValueError) as error:  # ValueError: a configuration of another version of effnet
        log.warning("the data that %s was trained on cannot be read, so the new ones are not compared: %s", ref, error)
        return None
