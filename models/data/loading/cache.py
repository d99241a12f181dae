"""Size-limited cache of shards on local disk: fetched once per machine and verified before first use.

The object store is authoritative; the folder is a cache shared by several ranks::

    BLAKE3.tar    complete and verified: renamed to this name last
    BLAKE3.tmp    being fetched by the holder of its lock; stale if unlocked
    cache.lock    held during eviction

The kernel releases the locks of a process however it dies, so nothing stays locked and partial files are recognized.
A shard that is evicted while a rank reads it stays readable through the rank's open file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from infra.errors import TransientError
from infra.store import files
from models.data.loading.fetch import Fetcher, StoppedError
from models.data.shards.manifest import Shard, shard_uri

log = logging.getLogger("effnet")
MAX_OPEN = 64  # open files per rank; evicted ones keep occupying disk space until they are closed
_POLL_S = 0.02  # poll interval while another process fetches the same shard
_TOUCH_S = 30.0  # resolution of the time of last use
_READ_TRIES = 4  # the last one after refetching


class _File:
    """An open shard, closed when the last reader releases it, so that no descriptor is reused under a reader."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class ShardCache:
    """Reads samples from cached shards; thread-safe.

    Args:
        root_uri: Folder of the manifest in the store.
        folder: Folder on local disk; created if missing.
        cap_bytes: Maximum size of the folder. A cap smaller than the working set works, but refetches the same shards
            repeatedly.

    Attributes:
        requests: Number of shards that readers reached, counted by the callers of ``read``.
        misses: Number of shards that had to be fetched.
    """

    def __init__(self, root_uri: str, folder: Path, cap_bytes: int) -> None:
        self.root_uri = root_uri
        self.folder = folder
        self.cap_bytes = cap_bytes
        self.requests = self.misses = 0
        self.fetcher = Fetcher()
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._pending: dict[str, Future[_File]] = {}
        self._lock = threading.Lock()
        with files.errors(folder):
            files.make_private(folder)
        for temporary in folder.glob("*.tmp"):
            if temporary.is_symlink():  # effnet creates no links: an attack, or garbage
                with suppress(OSError):
                    temporary.unlink()
            elif (descriptor := _claim(temporary)) is not None:  # its process died
                temporary.unlink(missing_ok=True)
                os.close(descriptor)

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """Returns the bytes ``[offset, offset + size)`` of a shard, fetching it if necessary.

        Raises:
            DataError: the object in the store does not match the manifest after three fetches.
            TransientError, ConfigError: the store was unavailable for minutes, or the cache disk is unusable.
        """
        for failures in range(_READ_TRIES):
            file = self._open(shard)
            try:
                data = os.pread(file.descriptor, size, offset)
                if len(data) == size:
                    return data
                problem = f"{len(data)} of {size} bytes at {offset}"
            except OSError as error:  # ESTALE of a network disk, EIO of a failing one
                problem = str(error)
            log.warning("%s in the shard cache: %s; reopening it", shard.name, problem)
            self.forget(shard, delete=failures == _READ_TRIES - 2)
        raise TransientError(f"{self.folder}: {shard.name} cannot be read: {problem}; check the disk")

    def ensure(self, shard: Shard) -> None:
        """Ensures that a shard is on disk; raises the errors of ``read``."""
        with files.errors(self._path(shard)):
            exists = self._path(shard).exists()
        if not exists:
            self._open(shard)

    def forget(self, shard: Shard, *, delete: bool) -> None:
        """Makes the next reader reopen the shard; with ``delete``, refetch it."""
        with self._lock:
            self._files.pop(shard.blake3, None)
        if delete:
            with suppress(OSError):
                self._path(shard).unlink()

    def close(self) -> None:
        """Stops fetches and closes the shards; the files remain."""
        self.fetcher.close()
        with self._lock:
            self._files.clear()

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.blake3}.tar"

    def _open(self, shard: Shard) -> _File:
        with self._lock:
            if (file := self._files.get(shard.blake3)) is not None:
                self._files.move_to_end(shard.blake3)
                return file
            pending = self._pending.get(shard.blake3)
            if pending is None:
                promise = self._pending[shard.blake3] = Future[_File]()
        if pending is not None:
            return pending.result()
        try:
            file = self._load(shard)
        except BaseException as error:
            with self._lock:
                del self._pending[shard.blake3]
            promise.set_exception(error)
            raise
        with self._lock:
            del self._pending[shard.blake3]
            self._files[shard.blake3] = file
            if len(self._files) > MAX_OPEN:
                self._files.popitem(last=False)
        promise.set_result(file)
        return file

    def _load(self, shard: Shard) -> _File:
        """Opens the file from disk or fetches it; only one process per machine fetches a shard."""
        temporary = self._path(shard).with_suffix(".tmp")
        while not self.fetcher.closed.is_set():
            if (cached := self._open_cached(shard)) is not None:
                return cached
            with files.errors(temporary):
                descriptor = _claim(temporary)
                if descriptor is None:
                    self.fetcher.closed.wait(_POLL_S)
                    continue
                file = _File(descriptor)
                if self._path(shard).exists():  # another rank completed it in the meantime
                    temporary.unlink()
                    continue
            try:
                self._reserve_space(shard.bytes, descriptor)
                self.fetcher.fetch(shard_uri(self.root_uri, shard), shard, descriptor)
                # No fsync: readers verify the checksum of every sample, also after a power cut.
                with files.errors(temporary):
                    temporary.rename(self._path(shard))
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            with self._lock:
                self.misses += 1
            return file
        raise StoppedError

    def _open_cached(self, shard: Shard) -> _File | None:
        path = self._path(shard)
        try:
            file = _File(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
            status = os.fstat(file.descriptor)
            if status.st_size == shard.bytes:
                if time.time() - status.st_mtime > _TOUCH_S:
                    os.utime(file.descriptor)
                return file
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s in the shard cache: %s; refetching it", shard.name, error)
        with files.errors(path):  # a file neither readable nor deletable would loop here forever
            path.unlink(missing_ok=True)
        return None

    def _reserve_space(self, size: int, descriptor: int) -> None:
        """Evicts the least recently opened shards (a run finishes those first) and reserves the space."""
        with files.errors(self.folder), os.fdopen(files.open_ours(self.folder / "cache.lock"), "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = []
            for path in self.folder.iterdir():
                with suppress(FileNotFoundError):
                    status = path.stat()
                    entries.append((path.suffix != ".tar", status.st_mtime, status.st_size, path))
            used = sum(file_size for _, _, file_size, _ in entries)
            for is_temporary, _, file_size, path in sorted(entries):
                if used + size <= self.cap_bytes or is_temporary:
                    break
                path.unlink(missing_ok=True)
                used -= file_size
            os.ftruncate(descriptor, size)


def _claim(temporary: Path) -> int | None:
    """Opens and locks a temporary file; None while another process or thread holds the lock."""
    descriptor = files.open_ours(temporary)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == temporary.stat().st_ino:  # else its holder has just renamed or removed it
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
