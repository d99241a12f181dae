"""The images that a night appends to its data (``transfer.data.append``): part of later nights only once accepted.

They are refused by the limits of the data, by the champion's answers to them, or with the network that was trained on
them; ``models/data/shards/refusals.py`` says how they can be used nevertheless. The first version of such a set can be
refused too: then the set begins anew with the folder as it is corrected.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from prefect import task

from conf import schema
from conf.text import logger
from infra import store
from infra.errors import DataError
from models.results import EvalResult, Registered, ShardResult
from tasks import policy
from tasks.nights import data_gate
from tasks.nights.start import NightStart
from tasks.registry.gate import PROMOTED, REFUSED
from tasks.registry.verdict import PENDING, STATE, VAL_SHA256, add_notes
from tasks.shard import ShardPlan

log = logger()


class RefusedDataError(DataError):
    """The data of a night violate a limit; nothing is trained."""


@task(task_run_name="open a version of the data", **policy.BOOKKEEPING)
async def open_batch(plan: ShardPlan) -> None:
    """Marks the version that is about to be written as not accepted yet, also the first; changes no other version."""
    await asyncio.to_thread(_open_batch, plan)


def _open_batch(plan: ShardPlan) -> None:
    from models.data.shards import acceptance, versions

    if plan.done is not None or not plan.version_name:
        return
    if not store.exists(versions.manifest_uri(plan.root, versions.number_of(plan.version))):
        acceptance.mark_pending(plan.root, plan.version_name)


@task(task_run_name="images added to {shards.name}", **policy.BOOKKEEPING)
async def find_added(start: NightStart, shards: ShardResult, limits: schema.Nightly) -> ShardResult | None:
    """Returns the images that the night has appended, as a set to evaluate the champion on; None if none are checked.

    Not checked are images that are accepted already, also by name (``data.accept``), a first version, which is no
    addition, and any with ``nightly.max_label_drop=100``.
    """
    return await asyncio.to_thread(_find_added, start, shards, limits)


def _find_added(start: NightStart, shards: ShardResult, limits: schema.Nightly) -> ShardResult | None:
    from models.data.shards import acceptance, versions
    from models.data.shards.stored import build_result

    if not start.continues or limits.max_label_drop >= 100 or acceptance.find(shards.manifest_uri) is None:
        return None
    if is_accepted_by_name(start.data, shards):
        return None
    uri, sha256, manifest = versions.write_added(shards.manifest_uri)
    if not manifest.samples("val"):
        return None
    return build_result(replace(start.data, leave_out=[]), uri, sha256, manifest, reused=False)


@task(task_run_name="labels of the images added to {shards.name}", **policy.BOOKKEEPING)
async def check_labels(start: NightStart, shards: ShardResult, answered: EvalResult, limits: schema.Nightly) -> None:
    """Compares the champion's accuracy on the appended images with that on val, before anything is trained.

    Args:
        start: Start of the night, from the champion.
        shards: Data of the night.
        answered: Evaluation of the champion on the appended images.
        limits: Limits of the night.

    Raises:
        RefusedDataError: The champion is much less accurate on them, so that many labels may be wrong.
    """
    await asyncio.to_thread(_check_labels, start, shards, answered, limits)


def _check_labels(start: NightStart, shards: ShardResult, answered: EvalResult, limits: schema.Nightly) -> None:
    from infra.tracking import registry

    tags = registry.resolve_version(start.parent).tags
    try:
        top1, n = float(tags["top1"]), int(tags["val_n"])
    except (KeyError, ValueError):
        log.warning("%s has no accuracy on val, so the labels of new images are not checked", start.parent)
        return
    fault = data_gate.describe_label_drop(answered.top1, answered.n, top1, n, limits)
    if fault is not None:
        refuse_data(start.data, shards, [fault])


@task(task_run_name="refuse the images added to {data.name}", **policy.BOOKKEEPING)
async def refuse_unusable(data: schema.Data, plan: ShardPlan, error: DataError) -> None:
    """Refuses the images of a night if too many of them cannot be used; does nothing after any other error.

    Raises:
        RefusedDataError: They are refused.
    """
    await asyncio.to_thread(_refuse_unusable, data, plan, error)


def _refuse_unusable(data: schema.Data, plan: ShardPlan, error: DataError) -> None:
    from models.data.shards.writer import LOST_HINT, ManyLostError

    if isinstance(error, ManyLostError):
        reason = str(error).removesuffix(LOST_HINT)
        said = _refuse(data, plan.root, plan.version_name, reason) if plan.version_name else ""
        raise RefusedDataError(f"the data {data.name} are refused, nothing is trained: {said or error}") from error


def _refuse(data: schema.Data, root: str, version: str, reason: str) -> str:
    """Refuses a version that is not accepted; says which images are withheld, or nothing if it is accepted."""
    from models.data.shards import acceptance, refusals

    refused = acceptance.refuse(root, version, reason)
    if refused is None:
        return ""
    if refused.number == 1 and data.frozen_val is not None:
        _release_val(data, root, data.frozen_val)
    return refusals.describe_withheld(data.name, refused)


def _release_val(data: schema.Data, root: str, name: str) -> None:
    """Forgets the frozen val of a refused first version, unless an accepted version has it, or a network of a line."""
    from infra.tracking import queries
    from models.data.shards import frozen_val, layout

    folder = root.rpartition("/")[0]
    val = frozen_val.load(folder, name)
    if val is None or layout.has_accepted(data, folder, val):
        return
    measured = (version.tags for version in queries.list_models() if version.tags.get(VAL_SHA256) == val.sha256)
    if all(tags.get(STATE) in (REFUSED, PENDING) for tags in measured):  # the line may have had other settings
        frozen_val.release(root, name)


def refuse_data(data: schema.Data, shards: ShardResult, faults: list[str]) -> None:
    """Refuses the images that the night has written, unless ``data.accept`` names them, which is logged.

    Raises:
        RefusedDataError: The data are refused.
    """
    from models.data.shards import acceptance

    reason = "; ".join(faults)
    if is_accepted_by_name(data, shards):
        log.warning("%s: accepted by data.accept, although %s", shards.name, reason)
        return
    mark = acceptance.find(shards.manifest_uri)
    said = "" if mark is None else _refuse(data, shards.manifest_uri.rpartition("/")[0], mark.version, reason)
    if data.append and not said:
        reason += (
            "; they are in the data set already: correct the folder and run a night with transfer.data.append=false"
        )
    raise RefusedDataError(f"the data {shards.name} are refused, nothing is trained: {said or reason}")


@task(task_run_name="images of {registered.name}/{registered.version} that were withdrawn", **policy.BOOKKEEPING)
async def find_withdrawn(registered: Registered, shards: ShardResult) -> str | None:
    """Says why a version is to be refused that was trained on images which a rollback has refused in the meantime.

    Returns:
        None if there are none, or if the version is judged already.
    """
    return await asyncio.to_thread(_find_withdrawn, registered, shards)


def _find_withdrawn(registered: Registered, shards: ShardResult) -> str | None:
    from models.data.shards import versions
    from tasks.registry.promote import is_pending

    mark = versions.find_withdrawn(shards.manifest_uri)
    if mark is None or not is_pending(f"{registered.name}/{registered.version}"):
        return None
    return f"version {mark.version} of its data was refused while it was trained: {mark.reason}"


@task(task_run_name="close the version of {shards.name}", **policy.BOOKKEEPING)
async def close_batch(start: NightStart, shards: ShardResult, outcome: Registered) -> Registered:
    """Accepts the images that the night has written, or refuses them with the network that was trained on them.

    Those of a network that tied or waits for approval are accepted; one that is not approved in time refuses no images.
    If the version was based on one that was refused meanwhile, it stays open: the next night judges its images anew.

    Returns:
        The outcome; a refusal says that the images are withheld too.
    """
    return await asyncio.to_thread(_close_batch, start, shards, outcome)


def _close_batch(start: NightStart, shards: ShardResult, outcome: Registered) -> Registered:
    from models.data.shards import acceptance, versions

    if outcome.outcome != PROMOTED and versions.find_withdrawn(shards.manifest_uri) is not None:
        return outcome
    if outcome.outcome != REFUSED or shards.left_out or is_accepted_by_name(start.data, shards):
        versions.accept(shards.manifest_uri)
        return outcome
    mark = acceptance.find(shards.manifest_uri)
    if mark is None:
        return outcome
    reason = f"{outcome.name}/{outcome.version} was refused, which was trained on them"
    said = _refuse(start.data, shards.manifest_uri.rpartition("/")[0], mark.version, reason)
    return replace(outcome, verdict=add_notes(outcome.verdict, said))


@task(task_run_name="accept the images added to {shards.name}", **policy.BOOKKEEPING)
async def accept_batch(shards: ShardResult) -> None:
    """Accepts the appended images, whether the network is promoted or refused."""
    from models.data.shards import versions

    await asyncio.to_thread(versions.accept, shards.manifest_uri)


def is_accepted_by_name(data: schema.Data, shards: ShardResult) -> bool:
    """Whether the version of the data is one that ``data.accept`` names, perhaps under an earlier number."""
    from models.data.shards import acceptance, refusals

    version = acceptance.find(shards.manifest_uri)
    return version is not None and refusals.is_accepted_by_name(data, version.version)
