"""Reads objects with their version, and replaces an object only if it still has that version.

S3 compares its entity tags (``If-None-Match``, ``If-Match``) and is exact among concurrent writers; the tag depends on
the content alone, so the writers must never write the same content twice. Raises the errors of ``infra.store``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from infra.errors import NotFoundError
from infra.store import client as s3
from infra.store import files, s3_errors
from infra.store.uris import local_path

ABSENT = ""  # the version of an object that does not exist


@dataclass(frozen=True)
class Versioned:
    """An object's content and version, and the seconds since it was written, by the clock of the store."""

    data: bytes
    version: str
    age_s: float


def read(uri: str) -> Versioned | None:
    """Returns the object at ``uri``; None if there is none."""
    try:
        if path := local_path(uri):
            with files.errors(path):
                data, written = path.read_bytes(), path.stat().st_mtime
            return Versioned(data, _version_of(data), time.time() - written)
        with s3.connect(uri) as (client, place):
            answer = client.get_object(**place)
            data = answer["Body"].read()
        date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return Versioned(data, answer["ETag"], (date - answer["LastModified"]).total_seconds())
    except NotFoundError:
        return None


def replace(uri: str, data: bytes, version: str) -> str | None:
    """Writes ``data`` if the object still has ``version``, or is still ``ABSENT``; of concurrent writers one succeeds.

    Returns:
        The new version; None if another writer was quicker, or if the object is gone.
    """
    if path := local_path(uri):
        return _replace_file(path, data, version)
    condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
    with s3.connect(uri) as (client, place):
        try:
            return str(client.put_object(**place, Body=data, **condition)["ETag"])
        except client.exceptions.ClientError as error:
            code = s3_errors.error_code(error)
            if code not in s3_errors.PRECONDITION_FAILED | s3_errors.MISSING:
                raise
    # A retry meets the object that its first try wrote if only the answer was lost.
    present = read(uri)
    return present.version if present is not None and present.data == data else None


def _replace_file(path: Path, data: bytes, version: str) -> str | None:
    with files.errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            present = _version_of(path.read_bytes()) if path.exists() else ABSENT
            if present != version:
                return None
            files.write(path, data)
            return _version_of(data)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _version_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
