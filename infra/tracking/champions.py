"""Moves the alias ``champion``: compare-and-set, one mover at a time, and an audit chain in the object store.

::

    STORAGE/champions/NAME/000001.json   one move: who, when, from, to, why, evidence, sha256 of the move before
    STORAGE/champions/NAME/000001.done   the aliases of this move are set

MLflow moves an alias without checking its old value and keeps no history. So the next number of the chain, which only
one process can create, is the right to move the alias: others wait until the move is done, and complete it themselves
if its process ended. ``previous`` is the version that was champion before. Both aliases are moved, never deleted, so a
reader always finds them. A move by other means, e.g. in MLflow's page, is recorded before the next move.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from infra import store
from infra.errors import ArtifactError
from infra.machine import format_utc
from infra.store.json_objects import read_object
from infra.tracking import registry

PREVIOUS = "previous"
OUTSIDE = "moved by other means than effnet"
TAKEOVER_S = 10.0  # after which the move of a process that may have ended is completed by another
_POLL_S = 0.05


@dataclass(frozen=True)
class ChampionMove:
    """One entry of the audit chain.

    Attributes:
        number: Position in the chain, from 1.
        name: Name of the registered model.
        old: Version that was champion; None if there was none.
        new: Version that is champion from then on; None if the alias was deleted by other means.
        who: User and host.
        when: UTC.
        why: Reason.
        evidence: Numbers of the comparison, as they are in the tags of the version.
        before_sha256: The sha256 of the entry before; empty for the first.
    """

    number: int
    name: str
    old: int | None
    new: int | None
    who: str
    when: str
    why: str
    evidence: dict[str, str] = field(default_factory=dict)
    before_sha256: str = ""


def move_champion(
    storage: str, name: str, new: int, *, expected: int | None, why: str, evidence: Mapping[str, str] | None = None
) -> ChampionMove | None:
    """Makes a version champion if ``expected`` is champion; otherwise changes nothing and returns None.

    Args:
        storage: Root uri of the chain, the same for all that share a registry.
        name: Name of the registered model.
        new: Version that becomes champion.
        expected: Version that must be champion now, None for no version.
        why: Reason, for the audit.
        evidence: Numbers that justify the move, for the audit.

    Raises:
        ConfigError: The version does not exist.
        ArtifactError: An entry of the chain is damaged.
    """
    while True:
        head = _settle(storage, name)
        current = _champion(name)
        before = hashlib.sha256(store.read(_uri(storage, name, head.number))).hexdigest() if head else ""
        number = head.number + 1 if head else 1
        if head is not None and head.new != current:
            outside = ChampionMove(number, name, head.new, current, "unknown", _now(), OUTSIDE, {}, before)
            if _append(storage, outside):
                _finish(storage, outside)
            continue
        if current != expected:
            return None
        registry.resolve_version(f"{name}/{new}")
        move = ChampionMove(number, name, current, new, _user(), _now(), why, dict(evidence or {}), before)
        if _append(storage, move):
            _apply(storage, move)
            return move


def read_history(storage: str, name: str) -> list[ChampionMove]:
    """Reads the audit chain of a model, oldest first, and verifies it.

    Raises:
        ArtifactError: An entry is missing, damaged or was changed.
    """
    moves: list[ChampionMove] = []
    before = ""
    for number, uri in enumerate(_entries(storage, name), 1):
        move = _read(uri)
        if (move.number, move.before_sha256) != (number, before):
            raise ArtifactError(
                f"{uri} does not follow entry {number - 1} of the chain: an entry was changed or deleted"
            )
        before = hashlib.sha256(store.read(uri)).hexdigest()
        moves.append(move)
    return moves


def _settle(storage: str, name: str) -> ChampionMove | None:
    """Returns the last entry when its aliases are set; sets them if the process that wrote it has probably ended."""
    deadline, waited_for = time.monotonic() + TAKEOVER_S, 0
    while True:
        entries = _entries(storage, name)
        if not entries:
            return None
        head = _read(entries[-1])
        if store.exists(_done_uri(storage, name, head.number)):
            return head
        if head.number != waited_for:
            deadline, waited_for = time.monotonic() + TAKEOVER_S, head.number
        elif time.monotonic() > deadline:
            _apply(storage, head)
            return head
        time.sleep(_POLL_S)


def _apply(storage: str, move: ChampionMove) -> None:
    """Sets the aliases of a move; again those of a newer one, if another process took over while this one was slow."""
    while True:
        if move.new is not None and move.why != OUTSIDE:
            if move.old is not None:
                registry.promote(move.name, move.old, PREVIOUS)
            registry.promote(move.name, move.new, registry.CHAMPION)
        _finish(storage, move)
        newest = _read(_entries(storage, move.name)[-1])
        if newest.number == move.number:
            return
        move = newest  # its process may have set the aliases before this one did


def _append(storage: str, move: ChampionMove) -> bool:
    """Writes an entry; False if another process has written one of this number."""
    text = json.dumps(asdict(move), indent=2, sort_keys=True) + "\n"
    return store.write(_uri(storage, move.name, move.number), text.encode(), if_absent=True)


def _finish(storage: str, move: ChampionMove) -> None:
    store.write(_done_uri(storage, move.name, move.number), b"", if_absent=True)


def _read(uri: str) -> ChampionMove:
    body = read_object(uri)
    try:
        return ChampionMove(**body)
    except TypeError as error:
        raise ArtifactError(f"{uri} is not an entry of the audit chain: {error}") from error


def _entries(storage: str, name: str) -> list[str]:
    return [uri for uri in store.list_uris(store.join(storage, "champions", name)) if uri.endswith(".json")]


def _uri(storage: str, name: str, number: int) -> str:
    return store.join(storage, "champions", name, f"{number:06d}.json")


def _done_uri(storage: str, name: str, number: int) -> str:
    return store.join(storage, "champions", name, f"{number:06d}.done")


def _champion(name: str) -> int | None:
    version = registry.champion(name)
    return None if version is None else version.version


def _now() -> str:
    return format_utc(time.time())


def _user() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
