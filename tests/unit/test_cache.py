"""Shards on local disk: damage never reaches a reader, a machine fetches a shard once, and the cap holds."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import store
from infra.errors import ConfigError, DataError, NotFoundError, TransientError
from models.data import ahead, fetch
from models.data.cache import MAX_OPEN, ShardCache
from models.data.fetch import FETCH_TRIES
from models.data.manifest import Shard

CONTENT = bytes(range(256)) * 40
PLENTY = 10**9


def shard_of(data: bytes, name: str = "train-0.tar") -> Shard:
    return Shard(name, "train", 1, len(data), hashlib.sha256(data).hexdigest())


def numbered(number: int) -> bytes:
    return number.to_bytes(2, "big") * 5000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "train-0.tar").write_bytes(CONTENT)
    return folder


@pytest.fixture
def open_cache(root: Path, tmp_path: Path) -> Iterator[Callable[..., ShardCache]]:
    """Makes caches on one folder, as ranks do; closes them at the end."""
    made: list[ShardCache] = []

    def make(cap_bytes: int = PLENTY) -> ShardCache:
        made.append(ShardCache(f"file://{root}", tmp_path / "cache", cap_bytes))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every range that is asked from the store, as it happens: name and first byte."""
    seen: list[tuple[str, int]] = []
    real = store.stream_range

    def counted(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        seen.append((uri.rpartition("/")[2], start))
        return real(uri, start, length, of)

    monkeypatch.setattr(store, "stream_range", counted)
    return seen


def left(folder: Path) -> list[str]:
    """What lies in the cache folder beside its lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != "cache.lock")


def many(root: Path, count: int) -> list[Shard]:
    """Shards of 10,000 bytes each."""
    for number in range(count):
        (root / f"train-{number}.tar").write_bytes(numbered(number))
    return [shard_of(numbered(number), f"train-{number}.tar") for number in range(count)]


def test_a_reader_gets_the_bytes_of_the_shard_and_later_ones_need_no_store(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]
) -> None:
    shard = shard_of(CONTENT)
    first = open_cache()
    assert first.read(shard, 300, 500) == CONTENT[300:800]
    assert first.read(shard, 0, 10) == CONTENT[:10]
    (root / "train-0.tar").unlink()
    assert open_cache().read(shard, 1000, 24) == CONTENT[1000:1024]
    assert len(requests) == 1
    assert left(tmp_path / "cache") == [f"{shard.sha256}.tar"]


def test_a_large_shard_comes_in_ranges_and_is_put_together_right(
    root: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RANGE_BYTES", 1000)
    assert open_cache().read(shard_of(CONTENT), 0, len(CONTENT)) == CONTENT
    assert sorted(start for _, start in requests) == list(range(0, len(CONTENT), 1000))


@pytest.mark.parametrize("damage", [
    lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    lambda data: data[:-512],
    lambda data: data + b"\0" * 512,
    lambda data: b"",
], ids=["flipped bit", "truncated", "longer", "empty"])  # fmt: skip
def test_a_damaged_shard_is_refused_by_name_after_three_fetches_and_leaves_nothing(
    damage: Callable[[bytes], bytes], root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache],
    requests: list[tuple[str, int]],
) -> None:  # fmt: skip
    (root / "train-0.tar").write_bytes(damage(CONTENT))
    with pytest.raises(DataError, match=rf"{root}/train-0\.tar does not match its manifest after 3 fetches"):
        open_cache().read(shard_of(CONTENT), 0, 10)
    assert len(requests) == FETCH_TRIES == 3
    assert left(tmp_path / "cache") == []


def test_one_bad_fetch_is_forgiven(
    open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.stream_range

    def flaky(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        for piece in real(uri, start, length, of):
            yield piece if len(requests) > 1 else piece[:-1] + b"?"

    monkeypatch.setattr(store, "stream_range", flaky)
    assert open_cache().read(shard_of(CONTENT), 0, 4) == CONTENT[:4]
    assert len(requests) == 2


def test_an_answer_that_breaks_off_goes_on_where_it_broke(
    open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "BACKOFF_S", (0.0, 0.0))
    real = store.stream_range

    def cut(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        yield b"".join(real(uri, start, length, of))[:3000]  # and not a word about the rest

    monkeypatch.setattr(store, "stream_range", cut)
    cache = open_cache()
    assert cache.read(shard_of(CONTENT), 0, len(CONTENT)) == CONTENT
    assert [start for _, start in requests] == [0, 3000, 6000, 9000]
    assert cache.fetcher.bytes_received == len(CONTENT)


def test_a_store_that_stays_away_is_told_as_that(
    open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "BACKOFF_S", (0.01, 0.02))
    monkeypatch.setattr(fetch, "OUTAGE_S", 0.2)

    def gone(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        raise TransientError(f"{uri}: nobody there")
        yield b""

    monkeypatch.setattr(store, "stream_range", gone)
    with pytest.raises(TransientError, match=r"train-0\.tar: nobody there; not a byte came for 0 s"):
        open_cache().read(shard_of(CONTENT), 0, 1)


def test_waits_between_tries_grow_to_ten_seconds_and_are_never_the_same() -> None:
    waits = [[fetch._pause_s(failures) for _ in range(50)] for failures in range(12)]
    assert max(map(max, waits)) <= 10.0
    assert max(waits[0]) <= 0.2
    assert min(waits[11]) >= 5.0
    assert len(set(waits[11])) == 50


def test_a_missing_shard_is_not_found_and_leaves_nothing(tmp_path: Path, open_cache: Callable[..., ShardCache]) -> None:
    with pytest.raises(NotFoundError, match=r"train-9\.tar"):
        open_cache().read(shard_of(b"x", "train-9.tar"), 0, 1)
    assert left(tmp_path / "cache") == []


def test_many_threads_fetch_once(open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]) -> None:
    cache, start, found = open_cache(), threading.Barrier(8), []

    def read(number: int) -> None:
        start.wait()
        found.append(cache.read(shard_of(CONTENT), number, 3) == CONTENT[number : number + 3])

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
    assert len(requests) == 1


PROCESS = """
import sys, time
from pathlib import Path
from infra import store
from models.data.cache import ShardCache
from models.data.manifest import Shard
root, folder, sha256, size, pause_s = sys.argv[1:]
real = store.stream_range
def slow(uri, start, length, of):
    print("fetching", flush=True)
    time.sleep(float(pause_s))
    yield from real(uri, start, length, of)
store.stream_range = slow
print("ready", flush=True)
sys.stdin.readline()
cache = ShardCache("file://" + root, Path(folder), 10**9)
print(len(cache.read(Shard("train-0.tar", "train", 1, int(size), sha256), 0, int(size))))
cache.close()
"""


def process(root: Path, folder: Path, pause_s: float) -> subprocess.Popen[str]:
    shard = shard_of(CONTENT)
    argv = [sys.executable, "-c", PROCESS, str(root), str(folder), shard.sha256, str(shard.bytes), str(pause_s)]
    started = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def go(started: subprocess.Popen[str]) -> None:
    assert started.stdin is not None
    started.stdin.write("go\n")
    started.stdin.flush()


def test_two_processes_fetch_once(root: Path, tmp_path: Path) -> None:
    running = [process(root, tmp_path / "cache", 0.5) for _ in range(2)]
    for each in running:
        go(each)
    told = "".join(each.communicate(timeout=30)[0] for each in running)
    assert told.count("fetching") == 1
    assert told.count(str(len(CONTENT))) == 2


def test_what_a_killed_process_left_half_done_is_cleared_away_and_fetched_anew(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache]
) -> None:
    killed = process(root, tmp_path / "cache", 60)
    go(killed)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "fetching\n"
    shard = shard_of(CONTENT)
    running = open_cache()
    assert left(tmp_path / "cache") == [f"{shard.sha256}.tmp"]  # it is somebody's, so it stays
    killed.kill()
    killed.communicate(timeout=10)
    assert running.read(shard, 0, len(CONTENT)) == CONTENT  # a cache that was open all the time
    (tmp_path / "cache" / f"{'0' * 64}.tmp").write_bytes(b"rubbish")
    open_cache()
    assert left(tmp_path / "cache") == [f"{shard.sha256}.tar"]


def test_a_file_of_the_wrong_size_is_fetched_again(
    tmp_path: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]
) -> None:
    shard = shard_of(CONTENT)
    cache = open_cache()
    (tmp_path / "cache" / f"{shard.sha256}.tar").write_bytes(CONTENT[:-1])
    assert cache.read(shard, 0, len(CONTENT)) == CONTENT
    assert len(requests) == 1


def test_the_cap_holds_and_the_shard_that_was_opened_longest_ago_goes_first(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache]
) -> None:
    shards, cache = many(root, 5), open_cache(cap_bytes=30_000)
    for number, shard in enumerate(shards[:3]):
        cache.read(shard, 0, 1)
        used_at = time.time() - 1000 + number
        os.utime(tmp_path / "cache" / f"{shard.sha256}.tar", (used_at, used_at))
    open_cache(cap_bytes=30_000).read(shards[0], 0, 1)  # another rank uses the oldest
    cache.read(shards[3], 0, 1)
    assert left(tmp_path / "cache") == sorted(f"{shards[i].sha256}.tar" for i in (0, 2, 3))
    cache.read(shards[4], 0, 1)
    assert left(tmp_path / "cache") == sorted(f"{shards[i].sha256}.tar" for i in (0, 3, 4))


def test_an_evicted_shard_stays_readable_for_who_has_it_open(
    root: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]
) -> None:
    shards, cache = many(root, 3), open_cache(cap_bytes=10_000)
    for shard in shards:
        cache.read(shard, 0, 1)
    assert [cache.read(shard, 9_000, 1000) for shard in shards] == [numbered(n)[9000:] for n in range(3)]
    assert len(requests) == 3


def test_a_cap_smaller_than_one_shard_still_works(root: Path, open_cache: Callable[..., ShardCache]) -> None:
    shards = many(root, MAX_OPEN + 20)
    cache = open_cache(cap_bytes=1)
    for number in [*range(len(shards)), *range(len(shards))]:
        assert cache.read(shards[number], 4, 6) == numbered(number)[4:10]
    assert cache.misses > len(shards)  # it had to fetch some again


def test_the_number_of_open_files_is_bounded(root: Path, open_cache: Callable[..., ShardCache]) -> None:
    shards, cache = many(root, 3 * MAX_OPEN), open_cache()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for shard in shards:
        cache.read(shard, 0, 1)
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= MAX_OPEN
    cache.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_read_that_the_disk_refuses_is_tried_on_the_file_opened_anew(
    root: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = os.pread, [errno.ESTALE, errno.EIO]

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if failures:
            raise OSError(failures[-1], os.strerror(failures.pop()))
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert open_cache().read(shard_of(CONTENT), 10, 10) == CONTENT[10:20]
    assert len(requests) == 1


def test_a_file_that_stays_unreadable_is_fetched_again(
    root: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if len(requests) < 2:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert open_cache().read(shard_of(CONTENT), 10, 10) == CONTENT[10:20]
    assert len(requests) == 2


def test_a_disk_that_never_reads_is_told(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pread(descriptor: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(TransientError, match=rf"{tmp_path}/cache: train-0\.tar cannot be read: .*Input/output error"):
        open_cache().read(shard_of(CONTENT), 10, 10)


def test_a_full_disk_is_told_as_that_and_leaves_nothing(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(ConfigError, match=r"disk full: train-0\.tar needs 10240 bytes"):
        open_cache().read(shard_of(CONTENT), 10, 10)
    assert left(tmp_path / "cache") == []


def test_closing_ends_a_fetch_that_waits_for_a_store_that_is_gone(
    open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def gone(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
        asked.set()
        raise TransientError("nobody there")
        yield b""

    monkeypatch.setattr(store, "stream_range", gone)
    monkeypatch.setattr(fetch, "BACKOFF_S", (60.0, 60.0))
    cache, raised = open_cache(), []

    def read() -> None:
        try:
            cache.read(shard_of(CONTENT), 0, 1)
        except fetch.StoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert asked.wait(5)
    began = time.monotonic()
    cache.close()
    thread.join(5)
    assert len(raised) == 1
    assert time.monotonic() - began < 2


def test_a_shard_that_another_rank_is_fetching_is_waited_for(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]
) -> None:
    shard, cache = shard_of(CONTENT), open_cache()
    temporary = tmp_path / "cache" / f"{shard.sha256}.tmp"
    with temporary.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=cache.read, args=(shard, 0, 1))
        thread.start()
        time.sleep(0.2)
        assert thread.is_alive()
        other.write(CONTENT)
        other.flush()
        temporary.rename(temporary.with_suffix(".tar"))
    thread.join(5)
    assert not thread.is_alive()
    assert requests == []


def test_shards_are_fetched_ahead_in_their_order_up_to_a_budget(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache]
) -> None:
    shards, cache = many(root, 8), open_cache()
    uses = [(step // 2, shard) for step, shard in enumerate(shards)]
    reader = ahead.Ahead(cache, uses, budget_bytes=30_000)

    def fetched() -> set[int]:
        have = left(tmp_path / "cache")
        return {number for number, shard in enumerate(shards) if f"{shard.sha256}.tar" in have}

    def soon(expected: set[int]) -> bool:
        deadline = time.monotonic() + 5
        while fetched() != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)  # and no more than that
        return fetched() == expected

    assert soon({0, 1, 2})  # before the first step, three of 10,000 bytes
    reader.advance(0)
    assert soon({0, 1, 2, 3, 4})  # the two of the step itself, and three ahead
    reader.advance(3)
    assert soon(set(range(8)))
    reader.close()
    assert (cache.hits, cache.misses) == (0, 8)
    again = ahead.Ahead(cache, uses, budget_bytes=80_000)
    again.advance(3)
    deadline = time.monotonic() + 5
    while cache.hits < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    again.close()
    assert (cache.hits, cache.misses) == (8, 8)


def test_what_cannot_be_fetched_ahead_is_left_for_the_reader_to_meet(
    root: Path, open_cache: Callable[..., ShardCache]
) -> None:
    (root / "train-0.tar").write_bytes(b"damaged")
    cache = open_cache()
    ahead.Ahead(cache, [(0, shard_of(CONTENT))], budget_bytes=PLENTY).close()
    with pytest.raises(DataError, match="does not match its manifest"):
        cache.read(shard_of(CONTENT), 0, 1)
