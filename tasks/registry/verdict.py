"""The tags in which the registry keeps what was decided about a version, and on which val.

Prefect is not imported, which takes a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.registry.gate import PROMOTED

if TYPE_CHECKING:
    from infra.tracking.champions import AliasMove
    from infra.tracking.registry import Version

STATE, REASON = "promotion", "promotion_reason"  # tags of a version
PENDING = "pending"  # value of STATE until the version is judged; then it is Verdict.outcome
WAITING = "waiting"  # value of STATE of a version that passed the gate and that a user must promote (nightly.approval)
WAITING_UNTIL = "promotion_until"  # tag: the time until which it waits, as format_utc writes it
VAL, VAL_SHA256 = "val", "val_sha256"  # tags: name and digest of the frozen val that a version was evaluated on
HINT = "; to promote it"  # begins the last part of the verdict on a version that is not champion
FIRST_TAGS = {STATE: PENDING}  # tags of every new version


def add_notes(verdict: str, *notes: str) -> str:
    """Adds notes to a verdict, before the hint how the version can be promoted; empty notes are omitted."""
    reason, hint, command = verdict.partition(HINT)
    return "; ".join(filter(None, [reason, *notes])) + hint + command


def complete_promotion(version: Version) -> None:
    """Completes the promotion of a champion whose command ended between the move of the alias and the tag of the state.

    Otherwise it would be judged again, also after a rollback, which would be undone.
    """
    from infra.tracking import registry
    from tasks.registry.family import describe_family

    if version.tags.get(STATE) == PENDING:
        describe_family(version.name)
        tags = {REASON: version.tags.get(REASON, "promoted"), STATE: PROMOTED}
        registry.set_tags(version.name, version.version, tags)


def record_manual_promotion(version: Version, move: AliasMove) -> None:
    """Records on a version that a user made it champion."""
    from infra.tracking import registry

    reason = f"promoted by {move.who}: {move.why}"
    registry.set_tags(version.name, version.version, {REASON: reason, STATE: PROMOTED})
