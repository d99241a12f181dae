"""The champion is judged again on the images that have come since; one that is worse than the one before is taken back.

The gate compares versions on a val that is as old as their line. So before a night trains on new images, the champion
and ``previous``, which know none of them, answer them. If the champion is worse, by the margins of the gate, the alias
returns to ``previous``, and the night continues from there.

Never against a user: a champion that someone promoted, restored, or moved in MLflow's page, stays, and that it is worse
is only said. Neither is one taken back that the watch itself has restored, so that two versions do not alternate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from conf.text import logger
from infra.errors import ArtifactError, PermanentError, first_line
from models.data.sources import catalog
from models.results import EvalResult, ShardResult
from tasks import policy
from tasks.classes import class_mismatch
from tasks.nights import data_gate, record
from tasks.nights import start as starts
from tasks.nights.history import Night
from tasks.nights.start import NightStart
from tasks.registry import gate, trained_on
from tasks.registry.verdict import REASON, record_manual_promotion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from infra.tracking.champions import AliasMove
    from infra.tracking.registry import Version

log = logger()


@dataclass(frozen=True)
class Watched:
    """What the champion is judged again by.

    Attributes:
        champion: ``NAME/VERSION``.
        previous: ``NAME/VERSION`` that was champion before.
        shards: The images that have come since the champion was trained, as split val.
    """

    champion: str
    previous: str
    shards: ShardResult


@task(task_run_name="images since {start.parent} was trained", **policy.BOOKKEEPING)
async def find_watched(start: NightStart, shards: ShardResult, config: schema.Config) -> Watched | None:
    """Returns the images by which the champion is judged again; None without enough of them, or without ``previous``.

    Raises:
        ArtifactError: The audit chain is damaged.
        TransientError: MLflow or the store does not respond; the same call resumes later.
    """
    return await asyncio.to_thread(_find_watched, start, shards, config.nightly, config.storage)


def describe_unwatched(start: NightStart, limits: schema.Nightly) -> str:
    """Says for the verdict why a night judges no champion again, whatever images came; empty if it can judge one."""
    if limits.watch_images is None or not start.continues or start.data.append:
        return ""
    why = (
        "this night appends nothing to its data (transfer.data.append, .shards, .limit)"
        if catalog.find(start.data.source).grows
        else f"{start.data.name} is a data set that does not grow"
    )
    return f"{start.parent} was not judged again on images that came since: {why}"


def _find_watched(start: NightStart, shards: ShardResult, limits: schema.Nightly, storage: str) -> Watched | None:
    from infra.tracking import champions, registry
    from models.data.shards import versions
    from models.data.shards.stored import build_result

    if limits.watch_images is None or not start.continues or not start.data.append or shards.left_out:
        return None
    champion = registry.resolve_version(start.parent)
    previous = registry.find_alias(start.line, champions.PREVIOUS)
    if previous is None or previous.version == champion.version:
        return None
    if (differs := class_mismatch(previous, shards)) is not None:
        log.info("%s is not compared with version %d: %s", start.parent, previous.version, differs)
        return None
    if (move := _find_move(champion, storage)) is not None and move.who == champions.WATCH:
        return None
    try:
        earlier = starts.load_job(champion).manifest_uri
        uri, sha256, manifest = versions.write_since(shards.manifest_uri, earlier)
    except PermanentError as error:  # it was imported, or its job was deleted
        log.info("%s is not judged again: %s", start.parent, first_line(error))
        return None
    if manifest.samples("val") < limits.watch_images:
        return None
    since = build_result(replace(start.data, leave_out=[]), uri, sha256, manifest, reused=False)
    if int((~trained_on.find_seen([champion, previous], since, manifest, None)).sum()) < limits.watch_images:
        return None
    return Watched(start.parent, f"{previous.name}/{previous.version}", since)


@task(task_run_name="judge {watched.champion} again", **policy.BOOKKEEPING)
async def judge_again(watched: Watched, answers: Sequence[EvalResult], config: schema.Config, night: Night) -> str:
    """Makes ``previous`` champion again if the champion is worse; sends an alert, and says what was done.

    Args:
        watched: Champion, the one before, and the images.
        answers: Their evaluations on the images.
        config: Configuration of the night.
        night: The night, whose record holds the alert until a receiver has it.

    Returns:
        A note for the verdict of the night, after which its start must be looked up again; empty if the champion is not
        worse, or the labels may be wrong.

    Raises:
        ArtifactError: An evaluation, or the audit chain, is damaged.
        TransientError: MLflow or the store does not respond; the same call resumes later.
    """
    return await asyncio.to_thread(_judge_again, watched, answers, config, night)


def _judge_again(watched: Watched, answers: Sequence[EvalResult], config: schema.Config, night: Night) -> str:
    from infra.tracking import registry

    champion, previous = (registry.resolve_version(ref) for ref in (watched.champion, watched.previous))
    verdict = _compare(champion, previous, watched, answers, config.nightly)
    if verdict is None:
        return ""
    if registry.CHAMPION not in champion.aliases:
        return _describe_moved(champion)
    move = _find_move(champion, config.storage)
    worse = f"version {champion.version} is worse than version {previous.version}: {verdict.reason}"
    # The gate records one reason in both places, a user's move another one in the tag.
    if move is None or move.why != champion.tags.get(REASON):
        said = f"{worse}; it was promoted by a user and stays: effnet rollback {champion.name} takes it back"
        log.warning("%s", said)
        record.report_event(config, night, f"worse: {said}")
        return said
    return _roll_back(champion, previous, worse, verdict, config, night)


def _describe_moved(champion: Version) -> str:
    """Says that another process has moved the alias, as another night at the same time."""
    return f"version {champion.version} is not champion any more"


def _find_move(champion: Version, storage: str) -> AliasMove | None:
    """The move that made a version champion; None if it was made by other means than effnet."""
    from infra.tracking import champions

    history = champions.read_history(storage, champion.name)
    return history[-1] if history and history[-1].new == champion.version else None


def _roll_back(
    champion: Version, previous: Version, worse: str, verdict: gate.Verdict, config: schema.Config, night: Night
) -> str:
    """Takes the champion back, and withholds the images that came with it, as ``effnet rollback`` does.

    The alias is moved last: a process that ends before has the next night do all of it again.
    """
    from infra.tracking import champions
    from tasks.registry.family import describe_family

    said = f"rolled back to version {previous.version}: {worse}"
    record.report_event(config, night, said)
    try:
        withheld = starts.withdraw_data(champion, previous, worse)
    except PermanentError as error:
        withheld = f"its data stay accepted: {first_line(error)}"
    move = champions.move_champion(
        config.storage,
        champion.name,
        previous.version,
        expected=champion.version,
        why=worse,
        evidence=verdict.tags,
        who=champions.WATCH,
    )
    if move is None:  # the night that continues from whichever is champion accepts its data
        return _describe_moved(champion)
    record_manual_promotion(previous, move)
    describe_family(previous.name)
    log.warning("%s", said)
    return "; ".join(filter(None, [said, withheld]))


def _compare(
    champion: Version, previous: Version, watched: Watched, answers: Sequence[EvalResult], limits: schema.Nightly
) -> gate.Verdict | None:
    """By what the champion is worse on the images that came since; None if it is not, or if their labels may be wrong.

    With wrong labels the better network is more often "wrong". They are told from a worse champion by the answers of
    the one before: as far as it agrees with the labels of val it must agree with those of the new images.
    """
    from models.data.shards import manifest as manifests

    try:
        top1, n = float(previous.tags["top1"]), int(previous.tags["val_n"])
    except (KeyError, ValueError):
        log.info("%s has no accuracy on val, so the labels of new images cannot be relied on", watched.previous)
        return None
    if data_gate.describe_label_drop(answers[1].top1, answers[1].n, top1, n, limits) is not None:
        return None
    manifest = manifests.load_verified(watched.shards.manifest_uri, watched.shards.manifest_sha256)
    labels = manifests.Samples(manifest, ["val"]).rows["label"]
    unseen = ~trained_on.find_seen([champion, previous], watched.shards, manifest, None)
    ours, theirs = (_read_correct(evaluation) for evaluation in answers)
    gate.require_same_images(ours, theirs, labels)
    return gate.find_regression(ours[unseen], theirs[unseen], labels[unseen], manifest.classes, limits)


def _read_correct(evaluation: EvalResult) -> NDArray[np.bool_]:
    from models.training import per_image

    correct = per_image.read(evaluation.job_uri, vars(evaluation))
    if correct is None:
        raise ArtifactError(f"{evaluation.job_uri}/{per_image.VAL_CORRECT} is damaged or missing: rerun the command")
    return correct
