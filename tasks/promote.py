"""Promotion rule: a registered version becomes champion if it beats the champion on the same images.

A version is judged once. The verdict is stored in its tags, so judging it again changes nothing: an alias that was
moved by hand stays where it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from infra import store
from infra.errors import ArtifactError, PermanentError
from models.results import EvalResult, Registered, ShardResult
from tasks import gate, policy
from tasks.evaluate import class_mismatch
from tasks.gate import PROMOTED, REFUSED, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from infra.tracking.registry import Version

STATE, REASON = "promotion", "promotion_reason"  # tags of a version
PENDING, PROMOTING = "pending", "promoting"  # values of STATE before the verdict; after it, Verdict.outcome
UNJUDGED = (PENDING, PROMOTING)  # the command that registered the version ended before it was judged
FIRST_TAGS = {STATE: PENDING}  # tags of every new version
LEFT_OUT = "left_out_samples"  # tag of a version trained with some shards excluded


async def judge(
    registered: Registered,
    shards: ShardResult,
    limits: schema.Nightly,
    evaluate_version: Callable[[str], Awaitable[EvalResult]],
) -> Registered:
    """Makes a new version champion if it beats the champion on the val split of ``shards``.

    Args:
        registered: The version, as returned by ``register``.
        shards: The data set that it was trained on.
        limits: Limits of the gate (``tasks/gate.py``).
        evaluate_version: Evaluates ``NAME/VERSION`` on the same val split; awaited only for versions whose per-image
            results are not stored yet.
    """
    evaluations: dict[str, EvalResult] = {}
    while True:
        outcome = await judge_step(registered, shards, limits, evaluations)
        if isinstance(outcome, Registered):
            return outcome
        for ref in outcome:
            evaluations[ref] = await evaluate_version(ref)


@task(task_run_name="judge {registered.name}/{registered.version}", **policy.BOOKKEEPING)
async def judge_step(
    registered: Registered, shards: ShardResult, limits: schema.Nightly, evaluations: Mapping[str, EvalResult]
) -> Registered | tuple[str, ...]:
    """One step of ``judge``: the judged version, or the versions that must be evaluated first.

    Raises:
        ArtifactError: The champion was not registered by effnet, or its description or an evaluation is damaged.
        TransientError: MLflow or the store does not respond; the same call resumes later.
    """
    return await asyncio.to_thread(_judge_step, registered, shards, limits, evaluations)


def _judge_step(
    registered: Registered, shards: ShardResult, limits: schema.Nightly, evaluations: Mapping[str, EvalResult]
) -> Registered | tuple[str, ...]:
    from infra.tracking import registry

    version = registry.resolve_version(f"{registered.name}/{registered.version}")
    if version.tags.get(STATE) not in UNJUDGED:
        return _report_earlier_verdict(version, registered.reused)
    while True:
        judged_before = judged_versions(version.name)  # before the champion is read, see promote
        champion = registry.champion(version.name)
        verdict = _compare(version, champion, shards, limits, evaluations)
        if not isinstance(verdict, Verdict):
            return verdict
        if verdict.outcome != PROMOTED:
            return decline(version, verdict, registered.reused)
        # Otherwise another version was promoted in the meantime: judge again.
        if _version_number(registry.champion(version.name)) == _version_number(champion):
            return promote(version, verdict, judged_before, registered.reused)


def champion_if_first(version: Version) -> Registered:
    """Makes a new version champion only if its name has none: for weights without a measured accuracy."""
    from infra.tracking import registry

    if version.tags.get(STATE) not in UNJUDGED:
        return _report_earlier_verdict(version, version.reused)
    judged_before, champion = judged_versions(version.name), registry.champion(version.name)
    if champion is None or champion.version == version.version:
        return promote(version, Verdict(PROMOTED, "promoted: there was no champion"), judged_before, version.reused)
    reason = f"not promoted: version {champion.version} is champion, and imported weights are not compared with it"
    return decline(version, Verdict(REFUSED, reason), version.reused)


def judged_versions(name: str) -> set[int]:
    """Numbers of the versions whose promotion is decided."""
    from infra.tracking import registry

    return {version.version for version in registry.versions(name) if version.tags.get(STATE) not in UNJUDGED}


def decline(version: Version, verdict: Verdict, reused: bool) -> Registered:
    """Records why a version is not champion: tied or refused."""
    from infra.tracking import registry

    registry.set_tags(version.name, version.version, {**verdict.tags, REASON: verdict.reason, STATE: verdict.outcome})
    return _report_verdict(version, verdict.reason, reused)


def promote(version: Version, verdict: Verdict, judged_before: set[int], reused: bool) -> Registered:
    """Makes a version champion, unless a better one of the same data is promoted at the same time.

    MLflow moves an alias without checking its old value. So each process first tags its version as promoting, and
    reads the tags of the others after it has moved the alias: the last writer has seen every version that it could
    have overwritten, and restores the best of them.

    Args:
        version: The version that beat the champion.
        verdict: The reason and the numbers.
        judged_before: Versions already judged when the champion was read. If one of them is not champion now, it
            was beaten or its alias was moved by hand, so it is not a rival.
        reused: Whether the version existed before.
    """
    from infra.tracking import registry

    name, best, written = version.name, version, None
    registry.set_tags(name, version.version, {**verdict.tags, REASON: verdict.reason, STATE: PROMOTING})
    while written is None or best.version != written:
        registry.promote(name, best.version, registry.CHAMPION)
        written = best.version
        best = max([version, *_rivals(version, judged_before)], key=lambda rival: (_top1(rival), -rival.version))
    if best.version != version.version:
        reason = (
            f"top-1 {_top1(version):.2f} % of val; version {best.version}, promoted at the same time, has "
            f"{_top1(best):.2f} %: not promoted"
        )
        return decline(version, Verdict(REFUSED, reason), reused)
    registry.set_tags(name, version.version, {STATE: PROMOTED})
    return _report_verdict(version, verdict.reason, reused)


def _rivals(version: Version, judged_before: set[int]) -> list[Version]:
    """Versions of the same data promoted while this one was judged. Tags of other data are not comparable."""
    from infra.tracking import registry

    return [
        rival
        for rival in registry.versions(version.name)
        if rival.version not in judged_before
        and rival.version != version.version
        and rival.tags.get(STATE) in (PROMOTING, PROMOTED)
        and rival.tags.get("data_manifest_sha256", "") == version.tags.get("data_manifest_sha256")
    ]


def _top1(version: Version) -> float:
    return float(version.tags.get("val_top1", "0"))


def _version_number(version: Version | None) -> int | None:
    return None if version is None else version.version


def _compare(
    version: Version,
    champion: Version | None,
    shards: ShardResult,
    limits: schema.Nightly,
    evaluations: Mapping[str, EvalResult],
) -> Verdict | tuple[str, ...]:
    """The verdict on a version, or the versions that must be evaluated on ``shards`` for it."""
    from models.data.shards import manifest as manifests

    if LEFT_OUT in version.tags:
        missing = version.tags[LEFT_OUT]
        return Verdict(REFUSED, f"not promoted: trained without {missing} samples of its data (data.leave_out)")
    if champion is None:
        return Verdict(PROMOTED, "promoted: there was no champion")
    if champion.version == version.version:  # an earlier command ended between the two writes of a promotion
        return Verdict(PROMOTED, version.tags.get(REASON, "promoted"))
    differs = class_mismatch(champion, shards)
    if differs is not None:
        return Verdict(
            REFUSED,
            f"not promoted: the champion, version {champion.version}, cannot be compared on {shards.name}: {differs}",
        )
    correct_by_ref = {_reference(v): _read_correct(v, shards, evaluations) for v in (version, champion)}
    unevaluated = tuple(ref for ref, correct in correct_by_ref.items() if correct is None)
    if unevaluated:
        return unevaluated
    ours, theirs = (correct for correct in correct_by_ref.values() if correct is not None)
    manifest = manifests.load_verified(shards.manifest_uri, shards.manifest_sha256, shards.left_out)
    labels = manifests.Samples(manifest, ["val"]).rows["label"]
    return gate.compare_answers(ours, theirs, labels, manifest.classes, limits, champion.version)


def _read_correct(
    version: Version, shards: ShardResult, evaluations: Mapping[str, EvalResult]
) -> NDArray[np.bool_] | None:
    """``[images]``: True where a version is correct on val of ``shards``; None if it must be evaluated first."""
    from infra.tracking.registry import WEIGHTS_TAG
    from models.training import per_image

    evaluation = evaluations.get(_reference(version))
    if evaluation is not None:
        correct = per_image.read(evaluation.job_uri, vars(evaluation))
        if correct is None:
            raise ArtifactError(
                f"{evaluation.job_uri}/{per_image.VAL_CORRECT} is damaged or missing: rerun the command"
            )
        return correct
    job_uri = version.tags.get("job_uri")
    if not job_uri or LEFT_OUT in version.tags or version.tags["data_manifest_sha256"] != shards.manifest_sha256:
        return None
    try:
        result = store.read_json(store.join(job_uri, "result.json"))
        if result["weights_sha256"] != version.tags[WEIGHTS_TAG]:
            return None
        return per_image.read(job_uri, result)
    except (PermanentError, KeyError, TypeError, ValueError):  # missing, damaged or in another store: evaluate again
        return None


def _reference(version: Version) -> str:
    return f"{version.name}/{version.version}"


def _report_earlier_verdict(version: Version, reused: bool) -> Registered:
    reason = version.tags.get(REASON, "registered before promotions were recorded")
    return _report_verdict(version, f"judged before: {reason}", reused)


def _report_verdict(version: Version, reason: str, reused: bool) -> Registered:
    """The version with its verdict; if it is not champion, with how a user can promote it."""
    from infra.tracking import registry

    aliases = registry.resolve_version(_reference(version)).aliases
    hint = ""
    if registry.CHAMPION not in aliases:
        url = registry.model_url(version.name, version.version)
        hint = f"; to promote it anyway, set its alias {registry.CHAMPION} at {url}"
    return Registered(version.name, version.version, aliases, reused, reason + hint)
