"""Promotion rule: a registered version becomes champion if it beats the champion on the same images.

A version is judged once. The verdict is stored in its tags, so judging it again changes nothing: an alias that was
moved by hand stays where it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect import task

from conf import schema
from infra import store
from infra.errors import ArtifactError, PermanentError
from infra.machine import format_utc
from models.results import EvalResult, Registered, ShardResult
from tasks import policy
from tasks.classes import class_mismatch
from tasks.registry import gate, trained_on
from tasks.registry.family import describe_family
from tasks.registry.gate import PROMOTED, REFUSED, Verdict
from tasks.registry.verdict import HINT, PENDING, REASON, STATE, VAL_SHA256, WAITING, WAITING_UNTIL, add_notes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from infra.tracking.registry import Version

EARLIER = "judged before"  # opens the verdict of a version that is not judged again
LEFT_OUT = "left_out_samples"  # tag of a version trained with some shards excluded


async def judge(
    registered: Registered,
    shards: ShardResult,
    storage: str,
    limits: schema.Nightly,
    evaluate_version: Callable[[str], Awaitable[EvalResult]],
) -> Registered:
    """Makes a new version champion if it beats the champion on the val split of ``shards``.

    Args:
        registered: The version, as returned by ``register``.
        shards: The data set that it was trained on.
        storage: Root uri of the audit chain.
        limits: Limits of the gate (``tasks/registry/gate.py``).
        evaluate_version: Evaluates ``NAME/VERSION`` on the same val split; awaited only for versions whose per-image
            results are not stored yet.
    """
    evaluations: dict[str, EvalResult] = {}
    while True:
        outcome = await judge_step(registered, shards, storage, limits, evaluations)
        if isinstance(outcome, Registered):
            return outcome
        for ref in outcome:
            evaluations[ref] = await evaluate_version(ref)


@task(task_run_name="judge {registered.name}/{registered.version}", **policy.BOOKKEEPING)
async def judge_step(
    registered: Registered,
    shards: ShardResult,
    storage: str,
    limits: schema.Nightly,
    evaluations: Mapping[str, EvalResult],
) -> Registered | tuple[str, ...]:
    """One step of ``judge``: the judged version, or the versions that must be evaluated first.

    Raises:
        ArtifactError: The champion was not registered by effnet, or its description or an evaluation is damaged.
        TransientError: MLflow or the store does not respond; the same call resumes later.
    """
    return await asyncio.to_thread(_judge_step, registered, shards, storage, limits, evaluations)


def _judge_step(
    registered: Registered,
    shards: ShardResult,
    storage: str,
    limits: schema.Nightly,
    evaluations: Mapping[str, EvalResult],
) -> Registered | tuple[str, ...]:
    from infra.tracking import registry

    version = registry.resolve_version(f"{registered.name}/{registered.version}")
    if version.tags.get(STATE) != PENDING:
        return _report_earlier_verdict(version, registered.reused)
    while True:
        champion = registry.champion(version.name)
        verdict = _compare(version, champion, shards, limits, evaluations)
        if not isinstance(verdict, Verdict):
            return verdict
        if verdict.outcome != PROMOTED:
            return decline(version, verdict, registered.reused)
        if limits.approval and (champion is None or champion.version != version.version):
            return decline(version, _wait_for_approval(verdict, limits, time.time()), registered.reused)
        promoted = promote(version, verdict, champion, storage, registered.reused)
        if promoted is not None:  # otherwise another version was promoted in the meantime: judge again
            return promoted


@task(task_run_name="refuse {registered.name}/{registered.version}", **policy.BOOKKEEPING)
async def refuse(registered: Registered, fault: str) -> Registered:
    """Refuses a version that was not compared with the champion, since something is wrong with its files."""
    return await asyncio.to_thread(_refuse, registered, fault)


def _refuse(registered: Registered, fault: str) -> Registered:
    from infra.tracking import registry

    version = registry.resolve_version(f"{registered.name}/{registered.version}")
    return decline(version, Verdict(REFUSED, f"not promoted: {fault}"), registered.reused)


def is_pending(ref: str) -> bool:
    """Whether a version, ``NAME/VERSION``, has not been judged yet."""
    from infra.tracking import registry

    return registry.resolve_version(ref).tags.get(STATE) == PENDING


def champion_if_first(version: Version, storage: str) -> Registered:
    """Makes a new version champion only if its name has none: for weights without a measured accuracy."""
    from infra.tracking import registry

    if version.tags.get(STATE) != PENDING:
        return _report_earlier_verdict(version, version.reused)
    champion = registry.champion(version.name)
    if champion is None or champion.version == version.version:
        first = Verdict(PROMOTED, "promoted: there was no champion")
        promoted = promote(version, first, champion, storage, version.reused)
        return promoted or champion_if_first(version, storage)
    reason = f"not promoted: version {champion.version} is champion, and imported weights are not compared with it"
    return decline(version, Verdict(REFUSED, reason), version.reused)


def _wait_for_approval(verdict: Verdict, limits: schema.Nightly, now: float) -> Verdict:
    """The verdict on a version that passed the gate and becomes champion only if a user promotes it."""
    until = format_utc(now + limits.approval_days * 86400)
    reason = f"{verdict.reason.replace('promoted', 'passed the gate', 1)}; it waits for approval until {until}"
    return Verdict(WAITING, reason, {**verdict.tags, WAITING_UNTIL: until})


def decline(version: Version, verdict: Verdict, reused: bool) -> Registered:
    """Records why a version is not champion: tied, refused, or waiting for approval."""
    from infra.tracking import registry

    registry.set_tags(version.name, version.version, {**verdict.tags, REASON: verdict.reason, STATE: verdict.outcome})
    return _report_verdict(version, verdict.reason, reused)


def promote(
    version: Version, verdict: Verdict, champion: Version | None, storage: str, reused: bool
) -> Registered | None:
    """Makes a version champion; returns None if ``champion`` is not champion any more.

    The reason is written before the alias is moved and the state after it, so that a command that ends in between is
    completed by the next one.
    """
    from infra.tracking import champions, registry

    number = None if champion is None else champion.version
    registry.set_tags(version.name, version.version, {**verdict.tags, REASON: verdict.reason})
    if number != version.version:
        move = champions.move_champion(
            storage, version.name, version.version, expected=number, why=verdict.reason, evidence=verdict.tags
        )
        if move is None:
            return None
    describe_family(version.name)
    registry.set_tags(version.name, version.version, {STATE: PROMOTED})
    return _report_verdict(version, verdict.reason, reused)


def _compare(
    version: Version,
    champion: Version | None,
    shards: ShardResult,
    limits: schema.Nightly,
    evaluations: Mapping[str, EvalResult],
) -> Verdict | tuple[str, ...]:
    """The verdict on a version, or the versions that must be evaluated on ``shards`` for it."""
    if LEFT_OUT in version.tags:
        missing = version.tags[LEFT_OUT]
        return Verdict(REFUSED, f"not promoted: trained without {missing} samples of its data (data.leave_out)")
    # An earlier command ended between the two writes of a promotion.
    if champion is not None and champion.version == version.version:
        return Verdict(PROMOTED, version.tags.get(REASON, "promoted"))
    if champion is not None and (differs := class_mismatch(champion, shards)) is not None:
        return Verdict(
            REFUSED,
            f"not promoted: the champion, version {champion.version}, cannot be compared on {shards.name}: {differs}",
        )
    return _compare_on_val(version, champion, shards, limits, evaluations)


def _compare_on_val(
    version: Version,
    champion: Version | None,
    shards: ShardResult,
    limits: schema.Nightly,
    evaluations: Mapping[str, EvalResult],
) -> Verdict | tuple[str, ...]:
    """As ``_compare``, by the images of val that neither of the two was trained on."""
    from models.data.shards import manifest as manifests

    manifest = manifests.load_verified(shards.manifest_uri, shards.manifest_sha256, shards.left_out)
    labels = manifests.Samples(manifest, ["val"]).rows["label"]
    if champion is None:
        correct = _read_correct(version, shards, evaluations)
        return (_reference(version),) if correct is None else gate.judge_first(correct, labels, limits)
    compared = [version, champion]
    seen = trained_on.find_seen(compared, shards, manifest, version.tags.get(VAL_SHA256))
    if not trained_on.can_compare(seen):
        return Verdict(
            REFUSED,
            f"not promoted: {trained_on.describe(seen)}, so they cannot be compared; train with the data.seed and "
            f"data.val_share of version {champion.version}, or register under another name",
        )
    correct_by_ref = {_reference(v): _read_correct(v, shards, evaluations) for v in compared}
    unevaluated = tuple(ref for ref, correct in correct_by_ref.items() if correct is None)
    if unevaluated:
        return unevaluated
    ours, theirs = (correct for correct in correct_by_ref.values() if correct is not None)
    gate.require_same_images(ours, theirs, labels)
    answers = [_read_answers(v, shards, evaluations) for v in compared]
    stored = [array for array in answers if array is not None and len(array) == len(labels)]
    unseen, fault = ~seen, None
    if len(stored) == len(compared):  # jobs that predate the stored answers are not compared by their calibration
        fault = gate.find_calibration_fault(stored[0][unseen], stored[1][unseen], labels[unseen], limits)
    verdict = gate.compare_answers(
        ours[unseen], theirs[unseen], labels[unseen], manifest.classes, limits, champion.version, fault
    )
    notes = _list_assumptions(evaluations)
    if unseen.all():
        return replace(verdict, reason=add_notes(verdict.reason, *notes))
    tags = {**verdict.tags, "compared_excluded": str(int(seen.sum()))}
    reason = add_notes(verdict.reason, f"{trained_on.describe(seen)}: these are not compared", *notes)
    return replace(verdict, reason=reason, tags=tags)


def _list_assumptions(evaluations: Mapping[str, EvalResult]) -> list[str]:
    """What the evaluations assume about the class names of imported weights, which may be those of the champion."""
    return [f"{ref}: {evaluation.assumed}" for ref, evaluation in evaluations.items() if evaluation.assumed]


def _read_correct(
    version: Version, shards: ShardResult, evaluations: Mapping[str, EvalResult]
) -> NDArray[np.bool_] | None:
    """``[images]``: True where a version is correct on val of ``shards``; None if it must be evaluated first."""
    from models.training import per_image

    evaluation = evaluations.get(_reference(version))
    if evaluation is not None:
        correct = per_image.read(evaluation.job_uri, vars(evaluation))
        if correct is None:
            raise ArtifactError(
                f"{evaluation.job_uri}/{per_image.VAL_CORRECT} is damaged or missing: rerun the command"
            )
        return correct
    try:
        job = _find_evaluation(version, shards, evaluations)
        return None if job is None else per_image.read(*job)
    except (PermanentError, KeyError, TypeError, ValueError):  # missing, damaged or in another store: evaluate again
        return None


def _read_answers(
    version: Version, shards: ShardResult, evaluations: Mapping[str, EvalResult]
) -> NDArray[np.void] | None:
    """``[images]`` of ``per_image.ANSWER`` of a version on val of ``shards``; None if they are not stored."""
    from models.training import per_image

    job = _find_evaluation(version, shards, evaluations)
    return None if job is None else per_image.read_answers(*job)


def _find_evaluation(
    version: Version, shards: ShardResult, evaluations: Mapping[str, EvalResult]
) -> tuple[str, Mapping[str, Any]] | None:
    """Run folder and result of the job that evaluated a version on val of ``shards``; None if there is none.

    Raises:
        PermanentError: The result is missing, damaged or in another store.
        KeyError: The result is damaged.
    """
    from infra.tracking.registry import WEIGHTS_TAG

    evaluation = evaluations.get(_reference(version))
    if evaluation is not None:
        return evaluation.job_uri, vars(evaluation)
    job_uri = version.tags.get("job_uri")
    if not job_uri or LEFT_OUT in version.tags or version.tags["data_manifest_sha256"] != shards.manifest_sha256:
        return None
    result = store.read_json(store.join(job_uri, "result.json"))
    return (job_uri, result) if result["weights_sha256"] == version.tags[WEIGHTS_TAG] else None


def _reference(version: Version) -> str:
    return f"{version.name}/{version.version}"


def _report_earlier_verdict(version: Version, reused: bool) -> Registered:
    reason = version.tags.get(REASON, "registered before promotions were recorded")
    return _report_verdict(version, f"{EARLIER}: {reason}", reused)


def _report_verdict(version: Version, reason: str, reused: bool) -> Registered:
    """The version with its verdict; if it is not champion, with how a user can promote it."""
    from infra.tracking import registry

    current = registry.resolve_version(_reference(version))
    hint, outcome = "", current.tags.get(STATE, "")
    if registry.CHAMPION not in current.aliases:
        anyway = "" if outcome == WAITING else " anyway"
        hint = f"{HINT}{anyway}: effnet promote {_reference(version)} --why TEXT"
    return Registered(version.name, version.version, current.aliases, reused, reason + hint, outcome)
