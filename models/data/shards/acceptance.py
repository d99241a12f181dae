"""Versions of a data set that are not accepted: those that a night has written and not judged yet, and refused ones.

::

    DIGEST/unaccepted-0002-5f0c9a31.json   written before the manifest, deleted when the night accepts the version

A version without this object is accepted. Its name has the digest of its images, since two processes may write versions
of one number. Later versions are appended to the newest accepted one, so the images of a refused version are in none of
them (``refusals.py``). A refused first version, ``0001-…``, is the beginning of nothing: once the folder has changed,
another first version is written.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from infra import store
from infra.errors import DataError, NotFoundError
from infra.store.json_objects import read_object
from models.data.shards import manifest as manifests

PENDING, REFUSED = "pending", "refused"
NAME = re.compile(r"unaccepted-(\d{4})(?:-[0-9a-f]{8})?\.json")  # without the digest: of an earlier effnet
_MANIFEST = re.compile(r"manifest(?:-(\d{4}))?\.json")


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


def name_version(number: int, digest: str) -> str:
    """Names a version by its number and the digest of its images."""
    return f"{number:04}-{digest[:8]}"


def mark_pending(root: str, version: str) -> None:
    """Marks a version that is about to be written as not accepted yet; one that is refused stays so."""
    if _find(root, version) is None:
        store.write_json(_uri(root, version), asdict(Unaccepted(version)))


def find(manifest_uri: str) -> Unaccepted | None:
    """Returns the version whose manifest this is, if it is not accepted; None for an accepted one."""
    root, _, name = manifest_uri.rpartition("/")
    match = _MANIFEST.fullmatch(name)
    if match is None:
        return None
    try:
        digest = manifests.source_digest(manifest_uri)
    except NotFoundError:
        return None
    present = _find(root, name_version(int(match[1] or 1), digest))
    return None if present is None else present[1]


def accept(root: str, version: str) -> None:
    """Accepts a version: from then on later versions contain it. ``versions.accept`` accepts what it contains, too."""
    if (present := _find(root, version)) is not None:
        store.delete(present[0])


def refuse(root: str, version: str, reason: str) -> Unaccepted | None:
    """Refuses a version; returns None, and does nothing, if it is accepted already."""
    present = _find(root, version)
    if present is None:
        return None
    refused = Unaccepted(version, REFUSED, reason)
    store.write_json(present[0], asdict(refused))
    return refused


def withdraw(root: str, version: str, reason: str) -> Unaccepted:
    """Refuses a version that was accepted, and that no accepted one was appended to."""
    refused = Unaccepted(version, REFUSED, reason)
    store.write_json(_uri(root, version), asdict(refused))
    return refused


def load(root: str, names: list[str]) -> tuple[Unaccepted, ...]:
    """Returns the versions that are not accepted, of the objects ``names`` in ``root``."""
    marks = (_read(store.join(root, name)) for name in sorted(names) if NAME.fullmatch(name))
    return tuple(mark for mark in marks if mark is not None)


def is_marked(manifest_uri: str, number: int, marks: tuple[Unaccepted, ...]) -> bool:
    """Whether the version whose manifest this is, of this number, is one of ``marks``."""
    of_number = {mark.digest for mark in marks if mark.number == number}
    return bool(of_number) and manifests.source_digest(manifest_uri)[:8] in of_number


def _find(root: str, version: str) -> tuple[str, Unaccepted] | None:
    """The object that marks a version, and what it says."""
    for uri in (_uri(root, version), _uri(root, version.partition("-")[0])):
        mark = _read(uri)
        if mark is not None and mark.version == version:
            return uri, mark
    return None


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


def _uri(root: str, version: str) -> str:
    return store.join(root, f"unaccepted-{version}.json")
