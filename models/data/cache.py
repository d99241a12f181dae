"""Shards on local disk: fetched once a machine, verified before the first sample is used."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from pathlib import Path

from infra import store
from infra.errors import DataError
from models.data.manifest import Shard

FETCH_TRIES = 3


class ShardCache:
    """Reads samples out of shards kept under ``folder/SHA256.tar``, shared by all ranks of the machine.

    A name that exists is complete and verified: a shard is fetched to a temporary name, checked against the
    manifest's size and sha256, then renamed. A file lock lets one process fetch while the others wait.
    """

    def __init__(self, root_uri: str, folder: Path) -> None:
        self.root_uri = root_uri
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """The bytes ``[offset, offset + size)`` of a shard.

        Raises:
            DataError: the store's object does not match the manifest after three fetches.
        """
        descriptor = self._files.get(shard.sha256)
        if descriptor is None:
            with self._lock:  # threads of this process fetch one after the other
                descriptor = self._files.get(shard.sha256)
                if descriptor is None:
                    descriptor = os.open(self._fetched(shard), os.O_RDONLY)
                    self._files[shard.sha256] = descriptor
        return os.pread(descriptor, size, offset)

    def close(self) -> None:
        """Closes the open shards; the files stay."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _fetched(self, shard: Shard) -> Path:
        path = self.folder / f"{shard.sha256}.tar"
        if path.exists():
            return path
        with (self.folder / f"{shard.sha256}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():  # else another rank fetched it while we waited
                self._fetch(shard, path)
        return path

    def _fetch(self, shard: Shard, path: Path) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        uri = store.join(self.root_uri, shard.name)
        try:
            for _ in range(FETCH_TRIES):
                store.download(uri, temporary)
                found = temporary.stat().st_size
                with temporary.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if found == shard.bytes and digest == shard.sha256:
                    temporary.rename(path)
                    return
        finally:
            temporary.unlink(missing_ok=True)
        raise DataError(
            f"{uri} does not match its manifest after {FETCH_TRIES} fetches: {found} of {shard.bytes} bytes, "
            f"sha256 {digest[:12]}… instead of {shard.sha256[:12]}…; delete it and shard again"
        )
