"""The line of champions that a night continues: its name, the version it starts from, and the check of its data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from conf.nightly import DEFAULT_MODEL
from conf.text import count, logger
from infra.errors import ConfigError
from models.results import Registered, ShardResult
from tasks import policy
from tasks.classes import class_mismatch
from tasks.nights import data_gate
from tasks.nights import start as starts
from tasks.nights.batch import refuse_data
from tasks.nights.start import NightStart
from tasks.registry import trained_on
from tasks.registry.verdict import complete_promotion

if TYPE_CHECKING:
    from models.data.shards.manifest import Manifest

log = logger()
SKIPPED = "skipped"
NO_VERSION = 0  # version of a night that comes to none


@task(task_run_name="start of the night of {config.nightly.model}", **policy.BOOKKEEPING)
async def find_start(config: schema.Config) -> NightStart:
    """Returns the champion of the line; before the line has one, that of ``nightly.model``.

    The line is ``MODEL-DATA``, or ``nightly.model`` itself if its champion was trained on this data set. A val of
    another name than the first has a line for itself, ``MODEL-DATA-VAL``: accuracies on two vals are never compared.

    A promotion of the champion that was interrupted is completed, and the images that it was trained on are accepted.

    Raises:
        ConfigError: ``nightly.model`` has no champion, or its val is another one.
    """
    return await asyncio.to_thread(_find_start, config)


def _find_start(config: schema.Config) -> NightStart:
    from infra.tracking import registry

    start = starts.resolve_start(config)
    if start.continues:
        champion = registry.resolve_version(start.parent)
        complete_promotion(champion)
        if accepted := starts.accept_data(champion):
            log.info("the images of %s are accepted, on which %s was trained", accepted, start.parent)
    return start


@task(task_run_name="champion of {config.nightly.model}", **policy.BOOKKEEPING)
async def find_reason_to_wait(config: schema.Config) -> Registered | None:
    """Returns that a night of the schedule has nothing to fine-tune yet; None if there is a champion, or an error.

    The schedule is active before anything is registered. A model that is not the default one was named by someone, so
    that one without a champion is an error.
    """
    return await asyncio.to_thread(_find_reason_to_wait, config)


def _find_reason_to_wait(config: schema.Config) -> Registered | None:
    from infra.tracking import registry

    model = config.nightly.model
    if model != DEFAULT_MODEL or registry.champion(model) is not None:
        return None
    reason = (
        f"skipped: nothing to fine-tune yet: no {model} has been promoted; `effnet reproduce` makes one, nightly.model "
        "names another model, `effnet nightly --pause` stops the schedule"
    )
    return Registered(f"{model}-{config.transfer.data.name}", NO_VERSION, (), verdict=reason, outcome=SKIPPED)


@task(task_run_name="new data for {start.line}", **policy.BOOKKEEPING)
async def find_reason_to_skip(start: NightStart, shards: ShardResult) -> Registered | None:
    """Returns the champion with the reason to train nothing: it was trained on the same data; None for new data.

    Args:
        start: Start of the night.
        shards: Data of the night.

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
    images = count(shards.train, "image")
    reason = f"skipped: no new data, version {parent.version} was trained on the same {images}"
    return Registered(parent.name, parent.version, parent.aliases, reused=True, verdict=reason, outcome=SKIPPED)


@task(task_run_name="check data of {start.line}", **policy.BOOKKEEPING)
async def check_data(start: NightStart, shards: ShardResult, limits: schema.Nightly) -> None:
    """Compares the data of a night with those of the champion, before anything is trained.

    Raises:
        RefusedDataError: The data violate a limit (``tasks/nights/data_gate.py``).
        ConfigError: The champion was trained on the images of val, or on nearly all of them.
    """
    await asyncio.to_thread(_check_data, start, shards, limits)


def _check_data(start: NightStart, shards: ShardResult, limits: schema.Nightly) -> None:
    from models.data.shards import manifest as manifests

    new = manifests.load_verified(shards.manifest_uri, shards.manifest_sha256, shards.left_out)
    old = starts.load_champion_data(start.parent) if start.continues else None
    if faults := data_gate.find_faults(new, old, limits):
        refuse_data(start.data, shards, faults)
    if start.continues:
        _require_unseen_val(start, shards, new)


def _require_unseen_val(start: NightStart, shards: ShardResult, new: Manifest) -> None:
    """Checks, before the training, that its result can be compared with the champion on images that are new to both."""
    from infra.tracking import registry
    from models.data.shards import frozen_val

    val = None
    if start.data.frozen_val is not None:
        val = frozen_val.load(shards.manifest_uri.rsplit("/", 2)[0], start.data.frozen_val)
    parent = registry.resolve_version(start.parent)
    seen = trained_on.find_seen([parent], shards, new, None if val is None else val.sha256)
    said = trained_on.describe(seen, start.parent)
    if not trained_on.can_compare(seen):
        raise ConfigError(
            f"{said} of {shards.name}, so no version could be compared with it; take the transfer.data.seed and "
            "transfer.data.val_share that it was trained with, and another nightly.val"
        )
    if seen.any():
        log.warning("%s of %s: only the others are compared", said, shards.name)
