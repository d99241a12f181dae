"""Shards on local disk: fetched once a machine, verified before the first sample is used, never more than a cap.

The object store is the truth and the folder is a cache that several ranks share::

    BLAKE3.tar    complete and verified: it gets this name last
    BLAKE3.tmp    being fetched by whoever holds the lock on it; without a holder it is rubbish
    cache.lock    held while room is made

The kernel drops the locks of a process that dies, however it dies, so nothing stays locked and what it left half
done is recognised. A shard that is evicted while a rank reads it stays readable through the rank's open file.
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

from infra import store
from infra.errors import TransientError
from infra.store import files
from models.data.loading.fetch import Fetcher, StoppedError
from models.data.shards.manifest import Shard

log = logging.getLogger("effnet")
MAX_OPEN = 64  # files a rank holds; evicted ones among them take their space until they are closed
_POLL_S = 0.02  # while another process fetches the shard that we need
_TOUCH_S = 30.0  # how exactly the time of the last use is kept
_READ_TRIES = 4  # the last one after fetching again


class _File:
    """An open shard; closed when the last reader lets go of it, so no reader finds its number reused."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class ShardCache:
    """Reads samples out of shards; safe to use from many threads.

    Args:
        root_uri: folder of the shards in the store.
        folder: on local disk; made when it is missing.
        cap_bytes: most that the folder may hold. A cap smaller than what is read at once works, and fetches the
            same shards again and again.

    Attributes:
        asked: shards that readers have come to; whoever calls ``read`` counts them.
        misses: shards that had to be fetched.
    """

    def __init__(self, root_uri: str, folder: Path, cap_bytes: int) -> None:
        self.root_uri = root_uri
        self.folder = folder
        self.cap_bytes = cap_bytes
        self.asked = self.misses = 0
        self.fetcher = Fetcher()
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._coming: dict[str, Future[_File]] = {}
        self._lock = threading.Lock()
        with files.errors(folder):
            files.make_private(folder)
        for temporary in folder.glob("*.tmp"):
            if temporary.is_symlink():  # nobody of ours makes links: a trap, or rubbish
                with suppress(OSError):
                    temporary.unlink()
            elif (descriptor := _claim(temporary)) is not None:  # its process died
                temporary.unlink(missing_ok=True)
                os.close(descriptor)

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """The bytes ``[offset, offset + size)`` of a shard, fetched if need be.

        Raises:
            DataError: the store's object does not match the manifest after three fetches.
            TransientError, ConfigError: the store was gone for minutes, or the disk of the cache cannot be used.
        """
        for failures in range(_READ_TRIES):
            file = self._open(shard)
            try:
                data = os.pread(file.descriptor, size, offset)
                if len(data) == size:
                    return data
                problem = f"{len(data)} of {size} bytes at {offset}"
            except OSError as error:  # ESTALE of a network disk, EIO of a dying one
                problem = str(error)
            log.warning("%s in the shard cache: %s; opening it again", shard.name, problem)
            self.forget(shard, delete=failures == _READ_TRIES - 2)
        raise TransientError(f"{self.folder}: {shard.name} cannot be read: {problem}; is the disk in order?")

    def ensure(self, shard: Shard) -> None:
        """Makes sure that a shard is on the disk; raises as ``read`` does."""
        with files.errors(self._path(shard)):
            there = self._path(shard).exists()
        if not there:
            self._open(shard)

    def forget(self, shard: Shard, *, delete: bool) -> None:
        """Opens the shard anew for its next reader; with ``delete`` from the store."""
        with self._lock:
            self._files.pop(shard.blake3, None)
        if delete:
            with suppress(OSError):
                self._path(shard).unlink()

    def close(self) -> None:
        """Ends fetches and closes the shards; the files stay."""
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
            coming = self._coming.get(shard.blake3)
            if coming is None:
                promise = self._coming[shard.blake3] = Future[_File]()
        if coming is not None:
            return coming.result()
        try:
            file = self._bring(shard)
        except BaseException as error:
            with self._lock:
                del self._coming[shard.blake3]
            promise.set_exception(error)
            raise
        with self._lock:
            del self._coming[shard.blake3]
            self._files[shard.blake3] = file
            if len(self._files) > MAX_OPEN:
                self._files.popitem(last=False)
        promise.set_result(file)
        return file

    def _bring(self, shard: Shard) -> _File:
        """An open file from the disk, or from the store; one process of the machine fetches."""
        temporary = self._path(shard).with_suffix(".tmp")
        while not self.fetcher.closed.is_set():
            if (found := self._from_disk(shard)) is not None:
                return found
            with files.errors(temporary):
                descriptor = _claim(temporary)
                if descriptor is None:
                    self.fetcher.closed.wait(_POLL_S)
                    continue
                file = _File(descriptor)
                if self._path(shard).exists():  # another rank was done with it in between
                    temporary.unlink()
                    continue
            try:
                self._make_room(shard.bytes, descriptor)
                self.fetcher.fetch(store.join(self.root_uri, shard.name), shard, descriptor)
                # Not synced to the disk: whoever reads a sample compares its checksum, also after a power cut.
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

    def _from_disk(self, shard: Shard) -> _File | None:
        path = self._path(shard)
        try:
            file = _File(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
            found = os.fstat(file.descriptor)
            if found.st_size == shard.bytes:
                if time.time() - found.st_mtime > _TOUCH_S:
                    os.utime(file.descriptor)
                return file
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s in the shard cache: %s; fetching it again", shard.name, error)
        with files.errors(path):  # what can neither be read nor deleted would be found here again and again
            path.unlink(missing_ok=True)
        return None

    def _make_room(self, size: int, descriptor: int) -> None:
        """Evicts the shards that were opened longest ago (a run is done with them first), and takes the room."""
        with files.errors(self.folder), os.fdopen(files.open_ours(self.folder / "cache.lock"), "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = []
            for path in self.folder.iterdir():
                with suppress(FileNotFoundError):
                    status = path.stat()
                    kept.append((path.suffix != ".tar", status.st_mtime, status.st_size, path))
            taken = sum(each for _, _, each, _ in kept)
            for is_temporary, _, each, path in sorted(kept):
                if taken + size <= self.cap_bytes or is_temporary:
                    break
                path.unlink(missing_ok=True)
                taken -= each
            os.ftruncate(descriptor, size)


def _claim(temporary: Path) -> int | None:
    """Opens and locks a temporary; None while another process, or another thread of ours, holds it."""
    descriptor = files.open_ours(temporary)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == temporary.stat().st_ino:  # else its holder has just finished with it
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
