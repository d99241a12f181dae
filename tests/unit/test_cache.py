"""Shards on local disk: damage in the store never reaches a reader, and a machine fetches a shard once."""

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra import store
from infra.errors import DataError, NotFoundError
from models.data.cache import FETCH_TRIES, ShardCache
from models.data.manifest import Shard

CONTENT = bytes(range(256)) * 40


def shard_of(data: bytes, name: str = "train-0.tar") -> Shard:
    return Shard(name, "train", len(data), hashlib.sha256(data).hexdigest(), [], [], [])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "train-0.tar").write_bytes(CONTENT)
    return folder


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every fetch from the store, as it happens."""
    seen: list[str] = []
    real = store.download

    def counted(uri: str, path: Path) -> None:
        seen.append(uri)
        real(uri, path)

    monkeypatch.setattr(store, "download", counted)
    return seen


def left(folder: Path) -> list[str]:
    """What lies in the cache folder beside the empty lock files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_reader_gets_the_bytes_of_the_shard_and_later_ones_need_no_store(
    root: Path, tmp_path: Path, downloads: list[str]
) -> None:
    shard = shard_of(CONTENT)
    first = ShardCache(f"file://{root}", tmp_path / "cache")
    assert first.read(shard, 300, 500) == CONTENT[300:800]
    assert first.read(shard, 0, 10) == CONTENT[:10]
    first.close()
    (root / "train-0.tar").unlink()
    second = ShardCache(f"file://{root}", tmp_path / "cache")
    assert second.read(shard, 1000, 24) == CONTENT[1000:1024]
    second.close()
    assert len(downloads) == 1
    assert left(tmp_path / "cache") == [f"{shard.sha256}.tar"]


@pytest.mark.parametrize("damage", [
    lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    lambda data: data[:-512],
    lambda data: data + b"\0" * 512,
    lambda data: b"",
], ids=["flipped bit", "truncated", "longer", "empty"])  # fmt: skip
def test_a_damaged_shard_is_refused_by_name_after_three_fetches_and_leaves_nothing(
    damage: object, root: Path, tmp_path: Path, downloads: list[str]
) -> None:
    assert callable(damage)
    (root / "train-0.tar").write_bytes(damage(CONTENT))
    cache = ShardCache(f"file://{root}", tmp_path / "cache")
    with pytest.raises(DataError, match=rf"{root}/train-0\.tar does not match its manifest after 3 fetches"):
        cache.read(shard_of(CONTENT), 0, 10)
    assert len(downloads) == FETCH_TRIES == 3
    assert left(tmp_path / "cache") == []


def test_one_bad_fetch_is_forgiven(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = store.download, []

    def flaky(uri: str, path: Path) -> None:
        real(uri, path)
        tries.append(uri)
        if len(tries) == 1:
            path.write_bytes(path.read_bytes()[:-1])

    monkeypatch.setattr(store, "download", flaky)
    cache = ShardCache(f"file://{root}", tmp_path / "cache")
    assert cache.read(shard_of(CONTENT), 0, 4) == CONTENT[:4]
    cache.close()
    assert len(tries) == 2


def test_a_missing_shard_is_not_found_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    cache = ShardCache(f"file://{root}", tmp_path / "cache")
    with pytest.raises(NotFoundError, match=r"train-9\.tar"):
        cache.read(shard_of(b"x", "train-9.tar"), 0, 1)
    assert left(tmp_path / "cache") == []


def test_many_threads_fetch_once(root: Path, tmp_path: Path, downloads: list[str]) -> None:
    cache = ShardCache(f"file://{root}", tmp_path / "cache")
    start, found = threading.Barrier(8), []

    def read(number: int) -> None:
        start.wait()
        found.append(cache.read(shard_of(CONTENT), number, 3) == CONTENT[number : number + 3])

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert found == [True] * 8
    assert len(downloads) == 1


TWO_PROCESSES = """
import sys, time
from pathlib import Path
from infra import store
from models.data.cache import ShardCache
from models.data.manifest import Shard
root, folder, sha256, size = sys.argv[1:]
real = store.download
def slow(uri, path):
    print("fetched", flush=True)
    time.sleep(0.5)
    real(uri, path)
store.download = slow
print("ready", flush=True)
sys.stdin.readline()
cache = ShardCache("file://" + root, Path(folder))
data = cache.read(Shard("train-0.tar", "train", int(size), sha256, [], [], []), 0, int(size))
print(len(data))
"""


def test_two_processes_fetch_once(root: Path, tmp_path: Path) -> None:
    shard = shard_of(CONTENT)
    argv = [sys.executable, "-c", TWO_PROCESSES, str(root), str(tmp_path / "cache"), shard.sha256, str(shard.bytes)]
    running = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = "".join(process.communicate(timeout=30)[0] for process in running)
    assert told.count("fetched") == 1
    assert told.count(str(len(CONTENT))) == 2
