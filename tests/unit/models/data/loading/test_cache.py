"""Shard cache: a machine fetches a shard once, the cap holds, and disk errors are recovered."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_shards import CONTENT, left, many, numbered, shard_of

from infra.errors import ConfigError, TransientError
from models.data.loading.cache import MAX_OPEN, ShardCache

pytest_plugins = ("made_cache",)


def test_a_cached_shard_is_read_without_the_store(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]
) -> None:
    shard = shard_of(CONTENT)
    first = open_cache()
    assert first.read(shard, 300, 500) == CONTENT[300:800]
    assert first.read(shard, 0, 10) == CONTENT[:10]
    (root / "train-0.tar").unlink()
    assert open_cache().read(shard, 1000, 24) == CONTENT[1000:1024]
    assert len(requests) == 1
    assert left(tmp_path / "cache") == [f"{shard.blake3}.tar"]


def test_many_threads_fetch_once(open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]) -> None:
    cache, start, matches = open_cache(), threading.Barrier(8), []

    def read(number: int) -> None:
        start.wait()
        matches.append(cache.read(shard_of(CONTENT), number, 3) == CONTENT[number : number + 3])

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert matches == [True] * 8
    assert len(requests) == 1


PROCESS = """
import sys, time
from pathlib import Path
from infra import store
from models.data.loading.cache import ShardCache
from models.data.shards.manifest import Shard
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
    argv = [sys.executable, "-c", PROCESS, str(root), str(folder), shard.blake3, str(shard.bytes), str(pause_s)]
    started = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def go(started: subprocess.Popen[str]) -> None:
    assert started.stdin is not None
    started.stdin.write("go\n")
    started.stdin.flush()


@pytest.mark.slow
def test_two_processes_fetch_once(root: Path, tmp_path: Path) -> None:
    running = [process(root, tmp_path / "cache", 0.5) for _ in range(2)]
    for started in running:
        go(started)
    output = "".join(started.communicate(timeout=30)[0] for started in running)
    assert output.count("fetching") == 1
    assert output.count(str(len(CONTENT))) == 2


def test_a_partial_file_of_a_killed_process_is_replaced(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache]
) -> None:
    killed = process(root, tmp_path / "cache", 60)
    go(killed)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "fetching\n"
    shard = shard_of(CONTENT)
    running = open_cache()
    assert left(tmp_path / "cache") == [f"{shard.blake3}.tmp"]  # its owner is alive, so it stays
    killed.kill()
    killed.communicate(timeout=10)
    assert running.read(shard, 0, len(CONTENT)) == CONTENT  # a cache that stayed open
    (tmp_path / "cache" / f"{'0' * 64}.tmp").write_bytes(b"rubbish")
    open_cache()
    assert left(tmp_path / "cache") == [f"{shard.blake3}.tar"]


def test_a_file_of_the_wrong_size_is_refetched(
    tmp_path: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]
) -> None:
    shard = shard_of(CONTENT)
    cache = open_cache()
    (tmp_path / "cache" / f"{shard.blake3}.tar").write_bytes(CONTENT[:-1])
    assert cache.read(shard, 0, len(CONTENT)) == CONTENT
    assert len(requests) == 1


def test_the_cap_is_kept_by_evicting_the_least_recently_opened_shard(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache]
) -> None:
    shards, cache = many(root, 5), open_cache(cap_bytes=30_000)
    for number, shard in enumerate(shards[:3]):
        cache.read(shard, 0, 1)
        used_at = time.time() - 1000 + number
        os.utime(tmp_path / "cache" / f"{shard.blake3}.tar", (used_at, used_at))
    open_cache(cap_bytes=30_000).read(shards[0], 0, 1)  # another rank uses the oldest shard
    cache.read(shards[3], 0, 1)
    assert left(tmp_path / "cache") == sorted(f"{shards[i].blake3}.tar" for i in (0, 2, 3))
    cache.read(shards[4], 0, 1)
    assert left(tmp_path / "cache") == sorted(f"{shards[i].blake3}.tar" for i in (0, 3, 4))


def test_an_evicted_shard_stays_readable_through_an_open_file(
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
    assert cache.misses > len(shards)  # some shards were fetched again


def test_the_number_of_open_files_is_bounded(root: Path, open_cache: Callable[..., ShardCache]) -> None:
    shards, cache = many(root, 3 * MAX_OPEN), open_cache()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for shard in shards:
        cache.read(shard, 0, 1)
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= MAX_OPEN
    cache.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_failed_read_is_repeated_on_the_reopened_file(
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


def test_a_file_that_stays_unreadable_is_refetched(
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


def test_a_file_that_can_neither_be_read_nor_deleted_is_reported(open_cache: Callable[..., ShardCache]) -> None:
    shard, cache = shard_of(CONTENT), open_cache()
    (cache.folder / f"{shard.blake3}.tar").mkdir()
    with pytest.raises((TransientError, ConfigError), match=f"{shard.blake3}.tar"):
        cache.read(shard, 0, 10)


def test_a_disk_that_never_reads_is_reported(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pread(descriptor: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(TransientError, match=rf"{tmp_path}/cache: train-0\.tar cannot be read: .*Input/output error"):
        open_cache().read(shard_of(CONTENT), 10, 10)


def test_a_reader_waits_for_a_shard_that_another_rank_fetches(
    root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache], requests: list[tuple[str, int]]
) -> None:
    shard, cache = shard_of(CONTENT), open_cache()
    temporary = tmp_path / "cache" / f"{shard.blake3}.tmp"
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
