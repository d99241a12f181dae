"""Statistics of a loader: what it read and how long its consumer waited."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields

from models.data.loading.cache import ShardCache


@dataclass(frozen=True)
class LoaderStats:
    """Sums since a loader was created; the difference of two covers the time between them.

    Attributes:
        wait_s: Time that the consumer waited for batches.
        decode_s: CPU time of the loading threads: reading from the cache, decoding, augmenting.
        images: Number of decoded images.
        bytes_read: Bytes of encoded images.
        bytes_fetched: Bytes received from the store; repeated transfers count every time.
        cache_hits: Number of shards already on disk when first needed.
        cache_misses: Number of shards that were fetched.
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
        """Rates over a period of ``seconds``, to log; empty if nothing was loaded."""
        if self.images == 0 or seconds <= 0:
            return {}
        shards = self.cache_hits + self.cache_misses
        return {
            "data_wait": self.wait_s / seconds,  # fraction of the time
            "decode_ms": 1e3 * self.decode_s / self.images,
            "read_mb_per_s": self.bytes_read / 1e6 / seconds,
            "fetch_mb_per_s": self.bytes_fetched / 1e6 / seconds,
            "cache_hits": self.cache_hits / shards if shards else 1.0,  # fraction of the shards
        }


class Meter:
    """Thread-safe accumulator of loader statistics."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wait_s = self._decode_s = 0.0
        self._images = self._bytes_read = 0

    def waited(self, seconds: float) -> None:
        """Adds time that the consumer waited."""
        with self._lock:
            self._wait_s += seconds

    def decoded(self, images: int, seconds: float, encoded: int) -> None:
        """Adds images, the CPU time spent on them, and their encoded bytes."""
        with self._lock:
            self._decode_s += seconds
            self._images += images
            self._bytes_read += encoded

    def stats(self, cache: ShardCache) -> LoaderStats:
        """Returns the sums so far."""
        with self._lock:
            sums = (self._wait_s, self._decode_s, self._images, self._bytes_read)
        # A shard may be prefetched long before it is needed, which is not a hit.
        return LoaderStats(*sums, cache.fetcher.bytes_received, max(0, cache.requests - cache.misses), cache.misses)
