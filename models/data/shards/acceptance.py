"""Versions of a data set that are not accepted: those that a night has appended and not judged yet, and refused ones.

::

    DIGEST/unaccepted-0002.json   written before manifest-0002.json, deleted when the night accepts the version

A version without this object is accepted. Later versions are appended to the newest accepted one, so the images of a
refused version are in none of them. Its images are withheld from later versions as long as the folder holds all of them
with the same labels. Once one of them was removed or moved to another class, the others are new images again; with the
name of the version in ``data.accept`` they are taken as they are.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from infra import store
from infra.errors import DataError, NotFoundError
from infra.store.json_objects import read_object

PENDING, REFUSED = "pending", "refused"
_NAME = re.compile(r"unaccepted-(\d{4})\.json")
_MANIFEST = re.compile(r"manifest-(\d{4})\.json")


@dataclass(frozen=True)
class Unaccepted:
    """A version that is not accepted.

    Attributes:
        version: Its name, ``0002-5f0c9a31``.
        state: ``PENDING`` or ``REFUSED``.
        reason: Why it was refused.
    """

    version: str
    state: str = PENDING
    reason: str = ""

    @property
    def number(self) -> int:
        """Number of the version."""
        return int(self.version.partition("-")[0])

    @property
    def digest(self) -> str:
        """First digits of the digest of its images."""
        return self.version.partition("-")[2]


def mark_pending(root: str, version: str) -> None:
    """Marks a version that is about to be written as not accepted yet; one that is refused stays so."""
    body = Unaccepted(version)
    if not store.exists(_uri(root, body.number)):
        store.write_json(_uri(root, body.number), asdict(body))


def find(manifest_uri: str) -> Unaccepted | None:
    """Returns the version whose manifest this is, if it is not accepted; None for an accepted one."""
    root, _, name = manifest_uri.rpartition("/")
    match = _MANIFEST.fullmatch(name)
    return None if match is None else _read(_uri(root, int(match[1])))


def accept(manifest_uri: str) -> None:
    """Accepts the version whose manifest this is: from then on later versions contain it."""
    if (version := find(manifest_uri)) is not None:
        store.delete(_uri(manifest_uri.rpartition("/")[0], version.number))


def refuse(manifest_uri: str, reason: str) -> Unaccepted | None:
    """Refuses the version whose manifest this is; returns None, and does nothing, if it is accepted already."""
    version = find(manifest_uri)
    if version is None:
        return None
    refused = Unaccepted(version.version, REFUSED, reason)
    store.write_json(_uri(manifest_uri.rpartition("/")[0], version.number), asdict(refused))
    return refused


def load(root: str, names: list[str]) -> tuple[Unaccepted, ...]:
    """Returns the versions that are not accepted, of the objects ``names`` in ``root``."""
    numbers = sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))
    return tuple(version for number in numbers if (version := _read(_uri(root, number))) is not None)


def _read(uri: str) -> Unaccepted | None:
    try:
        body = read_object(uri, version=str, state=str, reason=str)
    except NotFoundError:
        return None
    if body["state"] not in (PENDING, REFUSED) or not re.fullmatch(r"\d{4}-[0-9a-f]{8}", body["version"]):
        raise DataError(
            f"{uri} does not describe a version that is pending or refused; delete it to accept the version"
        )
    return Unaccepted(body["version"], body["state"], body["reason"])


def _uri(root: str, number: int) -> str:
    return store.join(root, f"unaccepted-{number:04}.json")
