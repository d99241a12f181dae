"""What a loader did and waited for, counted while it runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields

from models.data.loading.cache import ShardCache


@dataclass(frozen=True)
class LoaderStats:
    """Sums since a loader was made; two of them subtract to what happened in between.

    Attributes:
        wait_s: that the consumer waited for its next batch.
        decode_s: CPU time of the loading threads: reading from the cache, decoding, augmenting.
        images: that were decoded.
        bytes_read: of encoded images.
        bytes_fetched: from the store; what had to come twice counts twice.
        cache_hits: shards that were on the disk already when their turn came.
        cache_misses: shards that were fetched.
    """

    wait_s: float = 0.0
    decode_s: float = 0.0
    images: int = 0
    bytes_read: int = 0
    bytes_fetched: int = 0
    cache_hits: int = 0
    cache_misses: int = 0

    def __sub__(self, before: LoaderStats) -> LoaderStats:
        return LoaderStats(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))

    def metrics(self, seconds: float) -> dict[str, float]:
        """Numbers for people, of a stretch of ``seconds``; none where nothing was loaded."""
        if self.images == 0 or seconds <= 0:
            return {}
        shards = self.cache_hits + self.cache_misses
        return {
            "data_wait": self.wait_s / seconds,  # share of the time
            "decode_ms": 1e3 * self.decode_s / self.images,
            "read_mb_per_s": self.bytes_read / 1e6 / seconds,
            "fetch_mb_per_s": self.bytes_fetched / 1e6 / seconds,
            "cache_hits": self.cache_hits / shards if shards else 1.0,  # share of the shards
        }


class Meter:
    """Adds up what many threads report."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wait_s = self._decode_s = 0.0
        self._images = self._bytes_read = 0

    def waited(self, seconds: float) -> None:
        """The consumer waited."""
        with self._lock:
            self._wait_s += seconds

    def decoded(self, images: int, seconds: float, encoded: int) -> None:
        """A thread spent CPU time on images of so many encoded bytes."""
        with self._lock:
            self._decode_s += seconds
            self._images += images
            self._bytes_read += encoded

    def stats(self, cache: ShardCache) -> LoaderStats:
        """The sums so far."""
        with self._lock:
            own = (self._wait_s, self._decode_s, self._images, self._bytes_read)
        # A shard may be fetched long before its turn, which is then no hit.
        return LoaderStats(*own, cache.fetcher.bytes_received, max(0, cache.asked - cache.misses), cache.misses)
