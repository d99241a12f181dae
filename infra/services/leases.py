"""Prefect's concurrency slots as the embedded server notes them in files, and which of their holders live.

The server keeps two books: how many slots of a limit are taken (in its database), and one lease for each holder
(a file under ``PREFECT_HOME/concurrency_leases``). A server that dies between the two, or one that kept its leases
in memory, leaves slots taken by nobody; ``settle`` makes the first book agree with the second.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.services.prefect_api import PrefectApi, call

_SURE_S = 1.0  # the server changes one book right after the other
_TRIES = 5


@dataclass(frozen=True)
class Lease:
    """Some slots of the limits with these ids; ``holder`` is a task run's id, empty for a deployment's own lease."""

    id: str
    limits: tuple[str, ...]
    slots: int
    holder: str


def read(prefect_home: Path) -> list[Lease]:
    """The leases of the server with this home, those that ran out a moment ago included."""
    leases = []
    for path in sorted((prefect_home / "concurrency_leases").glob("*-*-*-*-*.json")):
        try:
            noted = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):  # released in this moment, or damaged: Prefect deletes such a file
            continue
        about = noted["metadata"] or {}
        holder = about.get("holder") or {}
        lease = Lease(noted["id"], tuple(noted["resource_ids"]), about.get("slots", 0), str(holder.get("id", "")))
        leases.append(lease)
    return leases


@contextmanager
def alive(prefect_home: Path, holder: str) -> Iterator[None]:
    """Marks ``holder`` as living while the block runs: a lock that the system frees when this process dies."""
    mark = _mark(prefect_home, holder)
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        try:
            yield
        finally:
            # After a release that did not get through, the mark tells the next `settle` that the holder is gone.
            if holder not in {lease.holder for lease in read(prefect_home)}:
                mark.unlink(missing_ok=True)


def is_dead(prefect_home: Path, holder: str) -> bool:
    """Whether a process of this machine marked ``holder`` as living and died; unknown ones count as living."""
    try:
        with _mark(prefect_home, holder).open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (FileNotFoundError, BlockingIOError):
        return False


def settle(api: PrefectApi, prefect_home: Path, say: Callable[[str], None]) -> None:
    """Frees the slots of dead holders, and sets the count of every limit to what its leases say."""
    for lease in read(prefect_home):
        if lease.holder and is_dead(prefect_home, lease.holder):
            # The limit is told first and the file goes last, so a death in between is mended by the next call.
            call(api, "POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": lease.id})
    _forget_the_dead(prefect_home)
    wrong = _wrong_counts(api, prefect_home)
    for _ in range(_TRIES):
        if not wrong:
            return
        time.sleep(_SURE_S)
        before, wrong = wrong, _wrong_counts(api, prefect_home)
        for name, (taken, right) in wrong.items():
            if before.get(name) == (taken, right):  # so it was no slot on its way from one book to the other
                status, _ = call(api, "PATCH", f"/v2/concurrency_limits/{name}", {"active_slots": right})
                if status == 204:
                    say(f"`{name}`: {taken} slots counted as taken, {right} in use; counted right")


def _forget_the_dead(prefect_home: Path) -> None:
    """Removes the marks that processes left when they died before or after they held a slot."""
    holders = {lease.holder for lease in read(prefect_home)}
    for mark in (prefect_home / "holders").glob("*"):
        if mark.name not in holders and is_dead(prefect_home, mark.name):
            mark.unlink(missing_ok=True)


def _wrong_counts(api: PrefectApi, prefect_home: Path) -> dict[str, tuple[int, int]]:
    """The limits whose count differs from their leases: the count and what it should be, by name."""
    status, limits = call(api, "POST", "/v2/concurrency_limits/filter", {})
    leases = read(prefect_home)
    wrong = {}
    for limit in limits if status == 200 else []:
        right = sum(lease.slots for lease in leases if limit["id"] in lease.limits)
        # One whose slots come back with time has no leases.
        if limit["slot_decay_per_second"] == 0 and limit["active_slots"] != right:
            wrong[limit["name"]] = (limit["active_slots"], right)
    return wrong


def _mark(prefect_home: Path, holder: str) -> Path:
    return prefect_home / "holders" / holder
