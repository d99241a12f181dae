"""Human approval of a promotion (``nightly.approval``): a version that passed the gate waits, for a limited time.

It waits with the alias ``challenger`` and the tag ``promotion=waiting``; ``effnet promote`` makes it champion. After
``nightly.approval_days`` the next night refuses it, so that no champion is replaced because of an old comparison.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from conf.text import logger
from infra.machine import format_utc
from tasks import policy
from tasks.nights import alerts
from tasks.registry import promote
from tasks.registry.gate import REFUSED, Verdict
from tasks.registry.verdict import REASON, STATE, WAITING, WAITING_UNTIL, record_manual_promotion

if TYPE_CHECKING:
    from infra.tracking.registry import Version

log = logger()


@task(task_run_name="approvals of {line}", **policy.BOOKKEEPING)
async def refuse_overdue(line: str, config: schema.Config) -> None:
    """Refuses the versions of a line that nobody has approved in time, and sends an alert about each.

    Raises:
        TransientError: MLflow does not respond; the same call resumes later.
    """
    await asyncio.to_thread(_refuse_overdue, line, config, time.time())


def _refuse_overdue(line: str, config: schema.Config, now: float) -> None:
    from infra.tracking import registry

    for listed in registry.versions(line):
        if not is_overdue(listed, now):
            continue
        version = registry.resolve_version(f"{line}/{listed.version}")  # someone may have promoted it meanwhile
        # The champion keeps the tag if its alias was moved elsewhere than by effnet.
        if is_overdue(version, now) and registry.CHAMPION not in version.aliases:
            reason = f"not promoted, nobody approved it in time: {version.tags.get(REASON, '')}"
            # Sent first: a process that ends in between sends it again, the other way round it would be lost.
            alerts.send(config.nightly.alerts, alerts.title(config, f"refused: {line}/{version.version}: {reason}"))
            promote.decline(version, Verdict(REFUSED, reason), reused=False)
            _restore_promoted(version, config.storage)


def _restore_promoted(version: Version, storage: str) -> None:
    """Records that a version was promoted whose promotion by a user was just overwritten by its refusal."""
    from infra.tracking import champions, registry

    champion = registry.champion(version.name)
    if champion is not None and champion.version == version.version:
        history = champions.read_history(storage, version.name)
        if history and history[-1].new == version.version:
            move = history[-1]
        else:  # as in MLflow's page, which the chain records before its next move
            move = champions.AliasMove(0, version.name, None, version.version, "unknown", "", champions.OUTSIDE)
        record_manual_promotion(version, move)
        log.warning("%s/%d was promoted while it was refused: it stays champion", version.name, version.version)


def is_overdue(version: Version, now: float) -> bool:
    """Whether a version waits for an approval and its time has passed; ``now`` is in unix seconds."""
    until = version.tags.get(WAITING_UNTIL, "")
    return version.tags.get(STATE) == WAITING and until < format_utc(now)
