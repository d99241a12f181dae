"""A whole object from the store into a local file: in ranges, several at a time, verified before it is used.

botocore tries a call again but not a body that breaks, and not for minutes; so the ranges are asked for here. A
range that broke goes on at the byte it came to. As long as the store is gone, we wait: an outage costs time and
nothing else.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any

from blake3 import blake3

from infra import store
from infra.errors import ConfigError, DataError, ExpiredError, TransientError
from models.data.shards.manifest import Shard

RANGE_BYTES = 16 * 2**20
RANGES_AT_ONCE = 8
FETCH_TRIES = 3  # of a whole shard that came but is not what the manifest says
OUTAGE_S = 240.0  # without a single byte, until we give up: before the watchdog would call it a hang
BACKOFF_S = (0.2, 10.0)  # first and longest
_HASH_BYTES = 2**18  # fits into the processor's cache


class StoppedError(Exception):
    """The fetcher was closed in the middle of a fetch."""


class Fetcher:
    """Fetches shards; safe to use from many threads, which share ``RANGES_AT_ONCE`` connections.

    Attributes:
        bytes_received: from the store, what had to come twice counted twice.
    """

    def __init__(self) -> None:
        self.bytes_received = 0
        self.closed = threading.Event()
        self._pool = ThreadPoolExecutor(RANGES_AT_ONCE, thread_name_prefix="range")
        self._lock = threading.Lock()
        self._halts: set[threading.Event] = set()

    def fetch(self, uri: str, shard: Shard, descriptor: int) -> None:
        """Writes the shard's bytes into an open file and checks them.

        Raises:
            DataError: the object is not what the manifest says, three times.
            NotFoundError: there is no such object.
            ConfigError: the disk is full.
            TransientError: not a byte came for four minutes; ExpiredError when it is for the credentials.
            StoppedError: the fetcher was closed.
        """
        for _ in range(FETCH_TRIES):
            try:
                os.ftruncate(descriptor, shard.bytes)
                found = self._fetch_ranges(uri, shard.bytes, descriptor)
                if found == shard.blake3:
                    return
                reason = f"BLAKE3 {found[:12]}… instead of {shard.blake3[:12]}…"
            except DataError as error:  # another size
                reason = str(error)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise ConfigError(
                        f"disk full: {shard.name} needs {shard.bytes} bytes in the shard cache; free some space or "
                        f"lower runtime.cache_gb"
                    ) from error
                reason = f"the cache's disk says {error.strerror}"
        raise DataError(
            f"{uri} does not match its manifest after {FETCH_TRIES} fetches: {reason}; delete it and shard "
            f"again, or do without it: data.leave_out=[{shard.name}]"
        )

    def close(self) -> None:
        """Ends what is under way; a fetch that is cut short raises ``StoppedError``."""
        self.closed.set()
        with self._lock:
            for halt in self._halts:
                halt.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _fetch_ranges(self, uri: str, size: int, descriptor: int) -> str:
        """Fetches all bytes; returns their BLAKE3, which is taken of each range while later ones are on their way."""
        digest, halt = blake3(), threading.Event()
        with self._lock:
            self._halts.add(halt)
        ranges: list[Future[None]] = []
        try:
            for start in range(0, size, RANGE_BYTES):
                end = min(start + RANGE_BYTES, size)
                ranges.append(self._submit(uri, start, end, size, descriptor, halt))
            for start, each in zip(range(0, size, RANGE_BYTES), ranges, strict=True):
                each.result()
                _hash(digest, descriptor, start, min(start + RANGE_BYTES, size))
            return digest.hexdigest()
        except CancelledError as error:  # by close
            raise StoppedError from error
        finally:  # when one failed, the others need not go on
            halt.set()
            # Only for those that run: a pool that shuts down forgets the cancelled ones, and waiting would never end.
            wait([each for each in ranges if not each.cancel()])
            with self._lock:
                self._halts.discard(halt)

    def _submit(self, *what: Any) -> Future[None]:
        try:
            return self._pool.submit(self._fetch_range, *what)
        except RuntimeError as error:  # the pool takes nothing more
            raise StoppedError from error

    def _fetch_range(self, uri: str, start: int, end: int, of: int, descriptor: int, halt: threading.Event) -> None:
        at, failures, last_byte = start, 0, time.monotonic()
        while at < end:
            problem = TransientError(f"{uri}: the answer broke off at byte {at} of {of}")
            try:
                for piece in store.stream_range(uri, at, end - at, of):
                    _write(descriptor, piece, at)
                    at += len(piece)
                    failures, last_byte = 0, time.monotonic()
                    with self._lock:
                        self.bytes_received += len(piece)
                    if halt.is_set():
                        raise StoppedError
            except TransientError as error:
                problem = error
            if at < end:
                if time.monotonic() - last_byte > OUTAGE_S:
                    raise type(problem)(f"{problem}; not a byte came for {OUTAGE_S:.0f} s")
                # Expired credentials have turns of their own in infra.store: one try a second in this process.
                if halt.wait(0.0 if isinstance(problem, ExpiredError) else _pause_s(failures)):
                    raise StoppedError
                failures += 1


def _pause_s(failures: int) -> float:
    first, longest = BACKOFF_S
    return min(longest, first * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0)


def _write(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _hash(digest: blake3, descriptor: int, start: int, end: int) -> None:
    """Adds bytes of the file, read back (from memory, in fact) because the ranges come in any order."""
    buffer = bytearray(_HASH_BYTES)
    for at in range(start, end, _HASH_BYTES):
        view = memoryview(buffer)[: min(_HASH_BYTES, end - at)]
        if os.preadv(descriptor, [view], at) != len(view):
            raise OSError(errno.EIO, "fewer bytes than were written")
        digest.update(view)
