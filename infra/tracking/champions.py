"""Moves the aliases of a model: compare-and-set, one mover at a time, and an audit chain in the object store.

::

    STORAGE/champions/NAME/000001.json   one move: who, when, from, to, why, evidence, sha256 of the move before
    STORAGE/champions/NAME/000001.done   the aliases of this move are set
    STORAGE/challengers/NAME/            the same of the alias ``challenger``

MLflow moves an alias without checking its old value and keeps no history. So the next number of the chain, which only
one process can create, is the right to move the alias: others wait until the move is done, and complete it themselves
if its process ended. ``previous`` is the version that was champion before. Aliases are moved, never deleted, so a
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

CHALLENGER, PREVIOUS = "challenger", "previous"
WATCH = "watch"  # who has moved an alias that no user and no promotion moved (tasks/nights/watch.py)
OUTSIDE = "moved by other means than effnet"
TAKEOVER_S = 10.0  # after which the move of a process that may have ended is completed by another
_POLL_S = 0.05


@dataclass(frozen=True)
class AliasMove:
    """One entry of the audit chain.

    Attributes:
        number: Position in the chain, from 1.
        name: Name of the registered model.
        old: Version that had the alias; None if there was none.
        new: Version that has it from then on; None if the alias was deleted by other means.
        who: User and host, or ``WATCH``.
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
    storage: str,
    name: str,
    new: int,
    *,
    expected: int | None,
    why: str,
    evidence: Mapping[str, str] | None = None,
    who: str | None = None,
) -> AliasMove | None:
    """Makes a version champion if ``expected`` is champion; otherwise changes nothing and returns None.

    Args:
        storage: Root uri of the chain, the same for all that share a registry.
        name: Name of the registered model.
        new: Version that becomes champion.
        expected: Version that must be champion now, None for no version.
        why: Reason, for the audit.
        evidence: Numbers that justify the move, for the audit.
        who: Who moves it, for the audit; None for the user of this process.

    Raises:
        ConfigError: The version does not exist.
        ArtifactError: An entry of the chain is damaged.
    """
    return _Chain(storage, name, registry.CHAMPION).move(new, expected, why, evidence or {}, who)


def move_challenger(
    storage: str, name: str, new: int, why: str, evidence: Mapping[str, str] | None = None
) -> AliasMove | None:
    """Makes a version challenger unless it, or a newer one, is challenger; then changes nothing and returns None.

    A version that is registered again, as by a night that is repeated, so never takes the alias back.

    Args:
        storage: Root uri of the chain, the same for all that share a registry.
        name: Name of the registered model.
        new: Version that becomes challenger.
        why: Reason, for the audit.
        evidence: What the version is, for the audit.

    Raises:
        ConfigError: The version does not exist.
        ArtifactError: An entry of the chain is damaged.
    """
    chain = _Chain(storage, name, CHALLENGER)
    while (current := chain.read_alias()) is None or current < new:
        if (move := chain.move(new, current, why, evidence or {})) is not None:
            return move
    return None


def read_history(storage: str, name: str, alias: str = registry.CHAMPION) -> list[AliasMove]:
    """Reads the audit chain of an alias of a model, oldest first, and verifies it.

    Raises:
        ArtifactError: An entry is missing, damaged or was changed.
    """
    moves: list[AliasMove] = []
    before = ""
    for number, uri in enumerate(_Chain(storage, name, alias).list_entries(), 1):
        move = _read(uri)
        if (move.number, move.before_sha256) != (number, before):
            raise ArtifactError(
                f"{uri} does not follow entry {number - 1} of the chain: an entry was changed or deleted"
            )
        before = hashlib.sha256(store.read(uri)).hexdigest()
        moves.append(move)
    return moves


@dataclass(frozen=True)
class _Chain:
    """The audit chain of one alias of a model."""

    storage: str
    name: str
    alias: str

    def move(
        self, new: int, expected: int | None, why: str, evidence: Mapping[str, str], who: str | None = None
    ) -> AliasMove | None:
        while True:
            head = self._settle()
            current = self.read_alias()
            before = hashlib.sha256(store.read(self._uri(head.number))).hexdigest() if head else ""
            number = head.number + 1 if head else 1
            if head is not None and head.new != current:
                outside = AliasMove(number, self.name, head.new, current, "unknown", _now(), OUTSIDE, {}, before)
                if self._append(outside):
                    self._finish(outside)
                continue
            if current != expected:
                return None
            registry.resolve_version(f"{self.name}/{new}")
            move = AliasMove(number, self.name, current, new, who or _user(), _now(), why, dict(evidence), before)
            if self._append(move):
                _apply(self, move)
                return move

    def read_alias(self) -> int | None:
        version = registry.find_alias(self.name, self.alias)
        return None if version is None else version.version

    def list_entries(self) -> list[str]:
        return [uri for uri in store.list_uris(self._join()) if uri.endswith(".json")]

    def set_aliases(self, move: AliasMove) -> None:
        """Sets what a move says, and records that it is done."""
        if move.new is not None and move.why != OUTSIDE:
            if move.old is not None and self.alias == registry.CHAMPION:
                registry.promote(move.name, move.old, PREVIOUS)
            registry.promote(move.name, move.new, self.alias)
        self._finish(move)

    def _settle(self) -> AliasMove | None:
        """Returns the last entry when its aliases are set; sets them if the process that wrote it has ended."""
        deadline, waited_for = time.monotonic() + TAKEOVER_S, 0
        while True:
            entries = self.list_entries()
            if not entries:
                return None
            head = _read(entries[-1])
            if store.exists(self._done_uri(head.number)):
                return head
            if head.number != waited_for:
                deadline, waited_for = time.monotonic() + TAKEOVER_S, head.number
            elif time.monotonic() > deadline:
                _apply(self, head)
                return head
            time.sleep(_POLL_S)

    def _append(self, move: AliasMove) -> bool:
        """Writes an entry; False if another process has written one of this number."""
        text = json.dumps(asdict(move), indent=2, sort_keys=True) + "\n"
        return store.write(self._uri(move.number), text.encode(), if_absent=True)

    def _finish(self, move: AliasMove) -> None:
        store.write(self._done_uri(move.number), b"", if_absent=True)

    def _uri(self, number: int) -> str:
        return self._join(f"{number:06d}.json")

    def _done_uri(self, number: int) -> str:
        return self._join(f"{number:06d}.done")

    def _join(self, *parts: str) -> str:
        return store.join(self.storage, f"{self.alias}s", self.name, *parts)


def _apply(chain: _Chain, move: AliasMove) -> None:
    """Sets the aliases of a move; again those of a newer one, if another process took over while this one was slow."""
    while True:
        chain.set_aliases(move)
        newest = _read(chain.list_entries()[-1])
        if newest.number == move.number:
            return
        move = newest  # its process may have set the aliases before this one did


def _read(uri: str) -> AliasMove:
    body = read_object(uri)
    try:
        return AliasMove(**body)
    except TypeError as error:
        raise ArtifactError(f"{uri} is not an entry of the audit chain: {error}") from error


def _now() -> str:
    return format_utc(time.time())


def _user() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
