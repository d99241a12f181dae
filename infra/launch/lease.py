"""The lease of a job: of all machines that share an object store, one at a time starts the job's processes.

The lease is the object ``lease.json`` in the run folder, written by conditional puts only. Its holder is the job's
folder on one machine, whose lock (``guard.py``) says whether processes of the job are alive there; a supervisor that
is started again on that machine therefore takes its lease over without waiting. Any other machine waits until the
lease was given back, or was not renewed for ``LEASE_S`` by the clock of the store.

A machine that cannot reach the store cannot renew, and may lose the lease while its trainer still computes; the trainer
can then write nothing, and is killed by the first answer of the store. Meanwhile both compute the same bits.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra import store
from infra.errors import DataError, TransientError
from infra.store import conditional, files
from infra.store.json_objects import NUMBER, check_object

LEASE_S = 60.0  # longer than a guard needs to end a job whose supervisor was killed (local.GRACE_S)
RENEW_S = LEASE_S / 4
WORKER = "EFFNET_WORKER"  # variable with the name of this worker; the name of the host elsewhere


@dataclass(frozen=True)
class Record:
    """Content of a lease: its holder, the name of the holder's machine, and whether it was given back."""

    holder: str
    worker: str
    lease_s: float
    released: bool


@dataclass
class Lease:
    """A lease that this process holds."""

    uri: str
    holder: str
    worker: str
    version: str

    def renew(self) -> bool:
        """Renews the lease; False if another machine has it.

        Raises:
            TransientError: The store does not answer; the lease may still be held.
        """
        return self._replace(released=False) or self._take_back()

    def release(self) -> None:
        """Gives the lease back, so that another machine need not wait; if the store does not answer, it expires."""
        with suppress(TransientError):
            self._replace(released=True)

    def _replace(self, *, released: bool) -> bool:
        version = conditional.replace(self.uri, _content(self.holder, self.worker, released), self.version)
        self.version = version or self.version
        return version is not None

    def _take_back(self) -> bool:
        """Renews it after another supervisor of this folder, which the folder's lock has refused, wrote it."""
        present = conditional.read(self.uri)
        if present is None or _parse(self.uri, present.data).holder != self.holder:
            return False
        self.version = present.version
        return self._replace(released=False)


def acquire(job_uri: str, holder: str) -> Lease | None:
    """Takes the lease of a job; None if another machine holds it.

    Args:
        job_uri: Run folder of the job.
        holder: Identity of the job's folder on this machine, from ``identify``.
    """
    uri, worker, version = _uri(job_uri), worker_name(), conditional.ABSENT
    if (present := conditional.read(uri)) is not None:
        record = _parse(uri, present.data)
        if _is_held(record, present.age_s) and record.holder != holder:
            return None
        version = present.version
    taken = conditional.replace(uri, _content(holder, worker, released=False), version)
    return Lease(uri, holder, worker, taken) if taken else None


def holder_elsewhere(job_uri: str, holder: str) -> str:
    """Returns the name of the worker that holds the lease, empty if none does or ``holder`` does."""
    present = conditional.read(_uri(job_uri))
    if present is None:
        return ""
    record = _parse(_uri(job_uri), present.data)
    return record.worker if _is_held(record, present.age_s) and record.holder != holder else ""


def last_worker(job_uri: str) -> str:
    """Returns the name of the worker that last had the lease, empty if none ever had."""
    present = conditional.read(_uri(job_uri))
    return _parse(_uri(job_uri), present.data).worker if present is not None else ""


def identify(folder: Path) -> str:
    """Returns the identity of a job's folder on this machine, a random word that the folder holds."""
    path = folder / "holder"
    with files.errors(path):
        if not path.exists():
            files.make_private(folder)
            files.write_if_absent(path, secrets.token_hex(8).encode())
        return path.read_text(encoding="utf-8")


def worker_name() -> str:
    """Returns the name of this worker or, for jobs without one, of this machine."""
    return os.environ.get(WORKER) or socket.gethostname()


def _uri(job_uri: str) -> str:
    return store.join(job_uri, "lease.json")


def _content(holder: str, worker: str, released: bool) -> bytes:
    record = {"holder": holder, "worker": worker, "lease_s": LEASE_S, "released": released}
    return json.dumps({**record, "nonce": secrets.token_hex(8)}).encode()  # every content has another version


def _parse(uri: str, data: bytes) -> Record:
    try:
        value = store.parse_json(data, uri)
        record = check_object(uri, value, holder=str, worker=str, lease_s=NUMBER, released=bool)
    except DataError:  # written by another program: it expires as any other
        return Record("", "unknown", LEASE_S, released=False)
    return Record(record["holder"], record["worker"], record["lease_s"], record["released"])


def _is_held(record: Record, age_s: float) -> bool:
    return not record.released and age_s < record.lease_s
