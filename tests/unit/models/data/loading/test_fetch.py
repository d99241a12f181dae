"""Fetching from the store to disk: readers never see damaged bytes, and outages only delay."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_shards import CONTENT, PLENTY, left, many, shard_of

from conf.schema import Runtime
from infra import store
from infra.errors import ConfigError, DataError, NotFoundError, TransientError
from models.data.loading import fetch, prefetch
from models.data.loading.cache import ShardCache
from models.data.loading.fetch import FETCH_TRIES

pytest_plugins = ("made_cache",)


def test_an_unreachable_store_is_reported_before_the_watchdog_timeout() -> None:
    limits = Runtime()
    longest = fetch.OUTAGE_S + fetch.BACKOFF_S[1] + 5 + store.STREAM_TIMEOUT_S  # and both timeouts of the last attempt
    assert longest + 30 < min(limits.step_timeout_s, limits.eval_timeout_s)


def test_a_large_shard_is_fetched_in_ranges_and_assembled_correctly(
    root: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RANGE_BYTES", 1000)
    assert open_cache().read(shard_of(CONTENT), 0, len(CONTENT)) == CONTENT
    assert sorted(start for _, start in requests) == list(range(0, len(CONTENT), 1000))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
        lambda data: data[:-512],
        lambda data: data + b"\0" * 512,
        lambda data: b"",
    ],
    ids=["flipped bit", "truncated", "longer", "empty"],
)
def test_a_damaged_shard_is_refused_by_name_after_three_fetches_and_leaves_no_file(
    damage: Callable[[bytes], bytes],
    root: Path,
    tmp_path: Path,
    open_cache: Callable[..., ShardCache],
    requests: list[tuple[str, int]],
) -> None:
    (root / "train-0.tar").write_bytes(damage(CONTENT))
    with pytest.raises(DataError, match=rf"{root}/train-0\.tar does not match its manifest after 3 fetches"):
        open_cache().read(shard_of(CONTENT), 0, 10)
    assert len(requests) == FETCH_TRIES == 3
    assert left(tmp_path / "cache") == []


def test_one_damaged_fetch_is_repeated(
    open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.stream_range

    def flaky(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        for piece in real(uri, start, length, of):
            yield piece if len(requests) > 1 else piece[:-1] + b"?"

    monkeypatch.setattr(store, "stream_range", flaky)
    assert open_cache().read(shard_of(CONTENT), 0, 4) == CONTENT[:4]
    assert len(requests) == 2


def test_an_interrupted_response_resumes_at_the_last_byte(
    open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "BACKOFF_S", (0.0, 0.0))
    real = store.stream_range

    def cut(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        yield b"".join(real(uri, start, length, of))[:3000]  # without an error

    monkeypatch.setattr(store, "stream_range", cut)
    cache = open_cache()
    assert cache.read(shard_of(CONTENT), 0, len(CONTENT)) == CONTENT
    assert [start for _, start in requests] == [0, 3000, 6000, 9000]
    assert cache.fetcher.bytes_received == len(CONTENT)


def test_a_long_outage_is_a_transient_error(
    open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "BACKOFF_S", (0.01, 0.02))
    monkeypatch.setattr(fetch, "OUTAGE_S", 0.2)

    def gone(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        raise TransientError(f"{uri}: nobody there")
        yield b""

    monkeypatch.setattr(store, "stream_range", gone)
    with pytest.raises(TransientError, match=r"train-0\.tar: nobody there; no byte arrived for 0 s"):
        open_cache().read(shard_of(CONTENT), 0, 1)


def test_retry_delays_grow_to_ten_seconds_and_are_random() -> None:
    waits = [[fetch._pause_s(failures) for _ in range(50)] for failures in range(12)]
    assert max(map(max, waits)) <= 10.0
    assert max(waits[0]) <= 0.2
    assert min(waits[11]) >= 5.0
    assert len(set(waits[11])) == 50


def test_a_missing_shard_is_not_found_and_leaves_no_file(tmp_path: Path, open_cache: Callable[..., ShardCache]) -> None:
    with pytest.raises(NotFoundError, match=r"train-9\.tar"):
        open_cache().read(shard_of(b"x", "train-9.tar"), 0, 1)
    assert left(tmp_path / "cache") == []


def test_a_full_disk_is_reported_and_leaves_no_file(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(ConfigError, match=r"disk full: train-0\.tar needs 10240 bytes"):
        open_cache().read(shard_of(CONTENT), 10, 10)
    assert left(tmp_path / "cache") == []


def reading(cache: ShardCache) -> tuple[threading.Thread, list[fetch.StoppedError]]:
    """Starts a thread that reads; returns it with the list of its errors."""
    raised: list[fetch.StoppedError] = []

    def read() -> None:
        try:
            cache.read(shard_of(CONTENT), 0, 1)
        except fetch.StoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, raised


def test_closing_ends_a_fetch_that_waits_for_the_store(
    open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = threading.Event()

    def gone(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        requested.set()
        raise TransientError("nobody there")
        yield b""

    monkeypatch.setattr(store, "stream_range", gone)
    monkeypatch.setattr(fetch, "BACKOFF_S", (60.0, 60.0))
    cache = open_cache()
    thread, raised = reading(cache)
    assert requested.wait(5)
    began = time.monotonic()
    cache.close()
    thread.join(20)
    assert len(raised) == 1
    assert time.monotonic() - began < 20


def test_closing_ends_a_fetch_with_ranges_that_have_not_started(
    open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = threading.Event()

    def endless(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        requested.set()
        for at in range(length):
            time.sleep(0.05)
            yield CONTENT[start + at : start + at + 1]

    monkeypatch.setattr(store, "stream_range", endless)
    monkeypatch.setattr(fetch, "RANGE_BYTES", 100)
    cache = open_cache()
    thread, raised = reading(cache)
    assert requested.wait(5)
    cache.close()
    thread.join(20)
    assert len(raised) == 1


def test_shards_are_prefetched_in_reading_order_up_to_a_budget(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache]
) -> None:
    shards, cache = many(root, 8), open_cache()
    uses = [(step // 2, shard) for step, shard in enumerate(shards)]
    reader = prefetch.Prefetcher(cache, uses, budget_bytes=30_000)

    def fetched() -> set[int]:
        have = left(tmp_path / "cache")
        return {number for number, shard in enumerate(shards) if f"{shard.blake3}.tar" in have}

    def soon(expected: set[int]) -> bool:
        deadline = time.monotonic() + 5
        while fetched() != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)  # and no further ones
        return fetched() == expected

    assert soon({0, 1, 2})  # before the first step, three of 10,000 bytes
    reader.advance(0)
    assert soon({0, 1, 2, 3, 4})  # the two of the step, and three ahead
    reader.advance(3)
    assert soon(set(range(8)))
    reader.join()
    assert (cache.requests, cache.misses) == (8, 8)
    again = prefetch.Prefetcher(cache, uses, budget_bytes=80_000)
    again.advance(3)
    again.join()
    assert (cache.requests, cache.misses) == (16, 8)


def test_a_failed_prefetch_is_left_to_the_reader(root: Path, open_cache: Callable[..., ShardCache]) -> None:
    (root / "train-0.tar").write_bytes(b"damaged")
    cache = open_cache()
    prefetch.Prefetcher(cache, [(0, shard_of(CONTENT))], budget_bytes=PLENTY).join()
    with pytest.raises(DataError, match="does not match its manifest"):
        cache.read(shard_of(CONTENT), 0, 1)
