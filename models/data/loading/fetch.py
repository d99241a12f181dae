"""Fetches an object from the store into a local file, in concurrent ranges, verified before use.

botocore retries calls, but not interrupted bodies and not for minutes; so retries are implemented here. An interrupted
range resumes at the last byte received. While the store is unavailable, the fetch waits: an outage costs only time.
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
FETCH_TRIES = 3  # of a whole shard whose content does not match the manifest
OUTAGE_S = 240.0  # without a single byte before giving up: shorter than the watchdog's timeout
BACKOFF_S = (0.2, 10.0)  # first and maximum
_HASH_BYTES = 2**18  # fits into the CPU cache


class StoppedError(Exception):
    """The fetcher was closed during a fetch."""


class Fetcher:
    """Fetches shards; thread-safe, all threads share ``RANGES_AT_ONCE`` connections.

    Attributes:
        bytes_received: Bytes received from the store, repeated transfers included.
    """

    def __init__(self) -> None:
        self.bytes_received = 0
        self.closed = threading.Event()
        self._pool = ThreadPoolExecutor(RANGES_AT_ONCE, thread_name_prefix="range")
        self._lock = threading.Lock()
        self._halts: set[threading.Event] = set()

    def fetch(self, uri: str, shard: Shard, descriptor: int) -> None:
        """Writes the shard's bytes into an open file and verifies them.

        Raises:
            DataError: the object does not match the manifest in three fetches.
            NotFoundError: the object does not exist.
            ConfigError: the disk is full.
            TransientError: no byte arrived for four minutes; ExpiredError if the credentials are the cause.
            StoppedError: the fetcher was closed.
        """
        for _ in range(FETCH_TRIES):
            try:
                os.ftruncate(descriptor, shard.bytes)
                digest = self._fetch_ranges(uri, shard.bytes, descriptor)
                if digest == shard.blake3:
                    return
                reason = f"BLAKE3 {digest[:12]}… instead of {shard.blake3[:12]}…"
            except DataError as error:  # another size
                reason = str(error)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise ConfigError(
                        f"disk full: {shard.name} needs {shard.bytes} bytes in the shard cache; free some space or "
                        f"lower runtime.cache_gb"
                    ) from error
                reason = f"cache disk error: {error.strerror}"
        remedy = "restore it, or shard again if it was written anew" if shard.address else "delete it and shard again"
        raise DataError(
            f"{uri} does not match its manifest after {FETCH_TRIES} fetches: {reason}; {remedy}, or train without it: "
            f"data.leave_out=[{shard.name}]"
        )

    def close(self) -> None:
        """Stops running fetches, which raise ``StoppedError``."""
        self.closed.set()
        with self._lock:
            for halt in self._halts:
                halt.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _fetch_ranges(self, uri: str, size: int, descriptor: int) -> str:
        """Fetches all bytes; returns their BLAKE3, computed range by range while later ranges arrive."""
        digest, halt = blake3(), threading.Event()
        with self._lock:
            self._halts.add(halt)
        ranges: list[Future[None]] = []
        try:
            for start in range(0, size, RANGE_BYTES):
                end = min(start + RANGE_BYTES, size)
                ranges.append(self._submit(uri, start, end, size, descriptor, halt))
            for start, future in zip(range(0, size, RANGE_BYTES), ranges, strict=True):
                future.result()
                _hash(digest, descriptor, start, min(start + RANGE_BYTES, size))
            return digest.hexdigest()
        except CancelledError as error:  # by close
            raise StoppedError from error
        finally:  # if one failed, the others need not continue
            halt.set()
            # Only running ones: a pool that shuts down drops canceled futures, and waiting for them would never end.
            wait([future for future in ranges if not future.cancel()])
            with self._lock:
                self._halts.discard(halt)

    def _submit(self, *arguments: Any) -> Future[None]:
        try:
            return self._pool.submit(self._fetch_range, *arguments)
        except RuntimeError as error:  # the pool is shut down
            raise StoppedError from error

    def _fetch_range(self, uri: str, start: int, end: int, of: int, descriptor: int, halt: threading.Event) -> None:
        at, failures, last_byte = start, 0, time.monotonic()
        while at < end:
            problem = TransientError(f"{uri}: the response ended at byte {at} of {of}")
            try:
                for chunk in store.stream_range(uri, at, end - at, of):
                    _write(descriptor, chunk, at)
                    at += len(chunk)
                    failures, last_byte = 0, time.monotonic()
                    with self._lock:
                        self.bytes_received += len(chunk)
                    if halt.is_set():
                        raise StoppedError
            except TransientError as error:
                problem = error
            if at < end:
                if time.monotonic() - last_byte > OUTAGE_S:
                    raise type(problem)(f"{problem}; no byte arrived for {OUTAGE_S:.0f} s")
                # infra.store throttles expired credentials itself: one try per second in this process.
                if halt.wait(0.0 if isinstance(problem, ExpiredError) else _pause_s(failures)):
                    raise StoppedError
                failures += 1


def _pause_s(failures: int) -> float:
    first, maximum = BACKOFF_S
    return min(maximum, first * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0)


def _write(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _hash(digest: blake3, descriptor: int, start: int, end: int) -> None:
    """Hashes bytes of the file, read back (from the page cache) because ranges arrive in any order."""
    buffer = bytearray(_HASH_BYTES)
    for at in range(start, end, _HASH_BYTES):
        view = memoryview(buffer)[: min(_HASH_BYTES, end - at)]
        if os.preadv(descriptor, [view], at) != len(view):
            raise OSError(errno.EIO, "fewer bytes than were written")
        digest.update(view)
