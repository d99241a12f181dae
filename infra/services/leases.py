"""Reads the concurrency leases of the embedded Prefect server and frees the slots of dead holders.

The server stores the number of occupied slots of each limit in its database, and one lease per holder in a file
under ``PREFECT_HOME/concurrency_leases``. A server that dies between the two writes, or that kept its leases in
memory, leaves slots occupied without a holder; ``reconcile`` makes the counts in the database match the leases.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from infra.services.prefect_api import PrefectApi, call

_SURE_S = 1.0  # the server updates the count and the lease shortly after each other
_TRIES = 5


@dataclass(frozen=True)
class Lease:
    """Slots of the limits with these ids; ``holder`` is the id of a task run, empty for the lease of a deployment."""

    id: str
    limits: tuple[str, ...]
    slots: int
    holder: str


def read(prefect_home: Path) -> list[Lease]:
    """Returns the leases of the server with this home, including those that have just expired."""
    leases = []
    for path in sorted((prefect_home / "concurrency_leases").glob("*-*-*-*-*.json")):
        try:
            record = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):  # just released, or damaged: Prefect deletes such a file
            continue
        metadata = record["metadata"] or {}
        holder = metadata.get("holder") or {}
        lease = Lease(record["id"], tuple(record["resource_ids"]), metadata.get("slots", 0), str(holder.get("id", "")))
        leases.append(lease)
    return leases


@contextmanager
def alive(prefect_home: Path, holder: str) -> Iterator[None]:
    """Marks ``holder`` as alive within the block: a lock that the system releases when this process dies."""
    mark = _mark_path(prefect_home, holder)
    mark.parent.mkdir(parents=True, exist_ok=True)
    draft = prefect_home / f"{mark.name}.draft"
    with draft.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        draft.rename(mark)  # a mark without a lock is that of a dead process, which others remove
        try:
            yield
        finally:
            # If the release failed, the mark lets the next `reconcile` detect that the holder is gone.
            if holder not in {lease.holder for lease in read(prefect_home)}:
                mark.unlink(missing_ok=True)


def is_first(prefect_home: Path, holder: str) -> bool:
    """Whether nobody on this machine has waited longer than ``holder``: marked earlier, alive, and without a lease."""
    arrival = _mark_path(prefect_home, holder).stat().st_mtime_ns
    served = {lease.holder for lease in read(prefect_home)}
    for mark in (prefect_home / "holders").iterdir():
        with suppress(FileNotFoundError):  # its holder has ended
            earlier = (mark.stat().st_mtime_ns, mark.name) < (arrival, holder)
            if earlier and mark.name not in served and not is_dead(prefect_home, mark.name):
                return False
    return True


def is_dead(prefect_home: Path, holder: str) -> bool:
    """Whether a process of this machine marked ``holder`` as alive and died; unknown holders count as alive."""
    try:
        with _mark_path(prefect_home, holder).open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (FileNotFoundError, BlockingIOError):
        return False


def reconcile(api: PrefectApi, prefect_home: Path, say: Callable[[str], None]) -> None:
    """Frees the slots of dead holders and sets the count of every limit to that of its leases."""
    for lease in read(prefect_home):
        if lease.holder and is_dead(prefect_home, lease.holder):
            # The limit is updated first and the file deleted last, so the next call repairs a crash in between.
            call(api, "POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": lease.id})
    _remove_stale_marks(prefect_home)
    wrong = _find_wrong_counts(api, prefect_home)
    for _ in range(_TRIES):
        if not wrong:
            return
        time.sleep(_SURE_S)
        before, wrong = wrong, _find_wrong_counts(api, prefect_home)
        for name, (taken, right) in wrong.items():
            if before.get(name) == (taken, right):  # so no update was in progress
                status, _ = call(api, "PATCH", f"/v2/concurrency_limits/{name}", {"active_slots": right})
                if status == 204:
                    say(f"`{name}`: {taken} slots counted as taken, {right} in use; counted right")


def _remove_stale_marks(prefect_home: Path) -> None:
    """Removes the marks of processes that died before or after they held a slot."""
    holders = {lease.holder for lease in read(prefect_home)}
    for mark in (prefect_home / "holders").glob("*"):
        if mark.name not in holders and is_dead(prefect_home, mark.name):
            mark.unlink(missing_ok=True)


def _find_wrong_counts(api: PrefectApi, prefect_home: Path) -> dict[str, tuple[int, int]]:
    """Returns actual and correct count, by name, of the limits whose count differs from their leases."""
    status, limits = call(api, "POST", "/v2/concurrency_limits/filter", {})
    leases = read(prefect_home)
    wrong = {}
    for limit in limits if status == 200 else []:
        right = sum(lease.slots for lease in leases if limit["id"] in lease.limits)
        # A limit whose slots decay over time has no leases.
        if limit["slot_decay_per_second"] == 0 and limit["active_slots"] != right:
            wrong[limit["name"]] = (limit["active_slots"], right)
    return wrong


def _mark_path(prefect_home: Path, holder: str) -> Path:
    return prefect_home / "holders" / holder
