"""The loader while store, disk and credentials fail: the same batches, each sample once, or a clear end.

Outages last two seconds here instead of minutes; the limits that they are measured against are shortened alike.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fault_proxy
import pytest
import torch
from fault_proxy import FaultProxy
from made_set import MadeSet, write_set

from conf.schema import Augment, Services
from infra import store
from infra.errors import DataError, TransientError
from infra.services import processes, stack
from models.data.loading import fetch, loader, prefetch
from models.data.loading.loader import Batch, Loader
from models.data.loading.stats import LoaderStats

pytestmark = pytest.mark.services
SIDE, SHARDS, BATCH, LOGICAL = 16, [8] * 8, 8, 2
OUTAGE_S = 2.0


@pytest.fixture(autouse=True)
def _limits_of_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ranges and no reading ahead, so that faults meet many requests; short waits."""
    monkeypatch.setattr(fetch, "RANGE_BYTES", 2**16)
    monkeypatch.setattr(fetch, "BACKOFF_S", (0.05, 0.5))
    monkeypatch.setattr(store, "STREAM_TIMEOUT_S", 0.7)
    monkeypatch.setattr(loader, "AHEAD_BYTES", 1)
    monkeypatch.setattr(prefetch, "SHARDS_AT_ONCE", 1)


@pytest.fixture(scope="module")
def made(object_store: str) -> MadeSet:
    """Eight shards of 400 kB, in the real store."""
    return write_set(f"{object_store}/faults", {"train": SHARDS}, padding=48_000)


@pytest.fixture(scope="module")
def undisturbed(made: MadeSet, tmp_path_factory: pytest.TempPathFactory) -> list[Batch]:
    return epoch(made, tmp_path_factory.mktemp("undisturbed"))[0]


@pytest.fixture
def proxy(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    started = fault_proxy.through(monkeypatch)
    yield started
    started.close()


def epoch(
    made: MadeSet, cache: Path, after_first: Callable[[], object] = lambda: None, cache_bytes: int = 10**9
) -> tuple[list[Batch], LoaderStats]:
    """All batches of an epoch; calls ``after_first`` when the first one is there."""
    reader = Loader(made.manifest, made.uri, "train", SIDE, Augment(), cache, 2, cache_bytes)
    try:
        batches = reader.train_batches(0, 0, 0, BATCH, LOGICAL, 0, 1)
        found = [next(batches)]
        after_first()
        return found + list(batches), reader.stats()
    finally:
        reader.close()


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(first, second, strict=True)
    )


def size_of(made: MadeSet) -> int:
    return sum(shard.bytes for shard in made.manifest.shards)


def test_the_undisturbed_epoch_has_each_sample_once(undisturbed: list[Batch]) -> None:
    labels = torch.cat([batch.labels for batch in undisturbed])
    assert sorted(labels.tolist()) == sorted(number % 10 for number in range(sum(SHARDS)))
    assert len(torch.cat([b.images for b in undisturbed]).flatten(1).unique(dim=0)) == sum(SHARDS)


@pytest.mark.parametrize("mode", ["refuse", "reset", "500", "503", "slow", "stall", "cut", "short"])
def test_an_outage_costs_time_and_nothing_else(
    mode: str, made: MadeSet, undisturbed: list[Batch], proxy: FaultProxy, tmp_path: Path
) -> None:
    began = time.monotonic()
    batches, stats = epoch(made, tmp_path, lambda: proxy.fail_for(mode, OUTAGE_S))
    took_s = time.monotonic() - began
    assert same(batches, undisturbed)
    assert proxy.faults > 0 or mode == "refuse"
    assert stats.cache_misses == len(SHARDS)  # no shard was started over: broken ranges go on where they broke
    assert size_of(made) <= stats.bytes_fetched <= size_of(made) + made.manifest.shards[0].bytes
    assert took_s < OUTAGE_S + 10  # back at work soon after
    if mode not in ("cut", "short"):  # these let something through
        assert took_s > OUTAGE_S - 0.5
        assert stats.wait_s > 0.5 * OUTAGE_S  # and it is told where the time went


def test_a_store_that_is_killed_and_started_again_costs_time_and_nothing_else(
    tmp_path: Path, undisturbed: list[Batch]
) -> None:
    before, run_dir = dict(os.environ), tmp_path / "run"
    try:
        stack.up(run_dir, Services(), jobs_at_once=1, say=lambda _: None, only=("s3",))
        made = write_set("s3://effnet/faults", {"train": SHARDS}, padding=48_000)
        restarted = threading.Thread(
            target=stack.up,
            args=(run_dir, Services()),
            kwargs={"jobs_at_once": 1, "say": lambda _: None, "only": ("s3",)},
        )

        def kill() -> None:
            handle = processes.running(run_dir / "services", "s3")
            assert handle is not None
            os.kill(handle.pid, signal.SIGKILL)
            while processes.running(run_dir / "services", "s3") is not None:
                time.sleep(0.01)
            restarted.start()

        batches, stats = epoch(made, tmp_path / "cache", kill)
        restarted.join()
        assert same(batches, undisturbed)
        assert stats.cache_misses == len(SHARDS)
    finally:
        stack.down(run_dir)
        os.environ.clear()
        os.environ.update(before)


def test_a_flipped_bit_on_the_way_is_noticed_and_fetched_again(
    made: MadeSet, undisturbed: list[Batch], proxy: FaultProxy, tmp_path: Path
) -> None:
    batches, stats = epoch(made, tmp_path, lambda: proxy.fail("flip", times=1))
    assert same(batches, undisturbed)
    assert proxy.faults == 1
    assert stats.bytes_fetched == size_of(made) + made.manifest.shards[0].bytes


def test_a_store_that_stays_away_too_long_ends_the_job_so_that_it_may_be_tried_again(
    made: MadeSet, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "OUTAGE_S", 1.0)
    with pytest.raises(TransientError, match="no byte arrived for 1 s") as caught:
        epoch(made, tmp_path, lambda: proxy.fail("503"))
    assert caught.value.exit_code == 75


def header(data: bytes, start: int, change: Callable[[bytes], bytes]) -> bytes:
    return data[:start] + change(data[start : start + 512]) + data[start + 512 :]


def with_extra_member(data: bytes, folder: Path) -> bytes:
    path = folder / "extra.tar"
    path.write_bytes(data)
    (folder / "extra.jpg").write_bytes(b"extra")
    with tarfile.open(path, "a") as tar:
        tar.add(folder / "extra.jpg", "zzz.jpg")
    return path.read_bytes()


CORRUPTIONS: dict[str, Callable[[bytes, Path], bytes]] = {
    "cut at a boundary": lambda data, _: data[: len(data) // 2 // 512 * 512],
    "cut in a header": lambda data, _: data[: len(data) // 2 // 512 * 512 + 200],
    "cut in a body": lambda data, _: data[:1000],
    "a zeroed header": lambda data, _: header(data, 0, lambda block: bytes(512)),
    "a bit of a header flipped": lambda data, _: header(data, 0, lambda block: bytes([block[0] ^ 1]) + block[1:]),
    "a bit of a body flipped": lambda data, _: data[:700] + bytes([data[700] ^ 1]) + data[701:],
    "another shard's content": lambda data, _: data[:512] + bytes(reversed(data[512:])),
    "an extra member": with_extra_member,
}


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_of_a_corrupted_shard_not_one_sample_is_used(kind: str, object_store: str, tmp_path: Path) -> None:
    made = write_set(f"{object_store}/corrupted", {"train": [16]})
    shard = made.manifest.shards[0]
    uri = f"{object_store}/corrupted/{shard.name}"
    store.write(uri, CORRUPTIONS[kind](store.read(uri), tmp_path))
    reader = Loader(made.manifest, made.uri, "train", SIDE, Augment(), tmp_path / "cache", 2)
    with pytest.raises(DataError, match=rf"{shard.name} does not match its manifest after 3 fetches") as caught:
        next(reader.train_batches(0, 0, 0, BATCH, LOGICAL, 0, 1))
    assert caught.value.exit_code == 3
    assert str(caught.value).endswith(f"data.leave_out=[{shard.name}]")
    assert reader.stats().images == 0
    assert list((tmp_path / "cache").glob("*.t*")) == []
    reader.close()


def test_a_disk_of_which_some_reads_fail_costs_at_most_one_fetch_more_for_each_shard(
    made: MadeSet, undisturbed: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, failed = random.Random(0), []

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            if rng.random() < 0.05:
                failed.append(rng.choice([errno.ESTALE, errno.EIO]))
                raise OSError(failed[-1], os.strerror(failed[-1]))
            return real(*args)

        return call

    for name in ("pread", "preadv"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    for attempt in range(5):  # the first fetches, the others only read
        batches, stats = epoch(made, tmp_path)
        assert same(batches, undisturbed)
        assert stats.bytes_fetched <= (2 if attempt == 0 else 1) * size_of(made)
    assert len(failed) >= 10


def test_a_cache_smaller_than_what_is_read_at_once_costs_time_and_nothing_else(
    made: MadeSet, undisturbed: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.loading.cache.MAX_OPEN", 2)
    batches, stats = epoch(made, tmp_path, cache_bytes=made.manifest.shards[0].bytes * 2)
    assert same(batches, undisturbed)
    assert stats.cache_misses > len(SHARDS)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= made.manifest.shards[0].bytes * 2


def credentials_file(path: Path, key: str) -> None:
    """As whoever rotates credentials does it: a new file in the place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret-of-{key}\n")
    fresh.replace(path)


@pytest.fixture
def rotating(proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The keys come from a file, and the proxy will call those of OLD expired."""
    path = tmp_path / "credentials"
    credentials_file(path, "OLD")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setattr(fetch, "RANGES_AT_ONCE", 3)
    return path


def test_expired_credentials_are_read_anew_and_the_store_is_asked_gently_meanwhile(
    made: MadeSet,
    undisturbed: list[Batch],
    proxy: FaultProxy,
    rotating: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    renewal = threading.Timer(4.0, credentials_file, (rotating, "NEW"))

    def expire() -> None:
        proxy.expired_key = "OLD"
        renewal.start()

    batches, _ = epoch(made, tmp_path / "cache", expire)
    renewal.join()
    assert same(batches, undisturbed)
    assert 2 <= proxy.refused <= fetch.RANGES_AT_ONCE + 6  # those on the way together, then one a second
    assert "secret-of" not in caplog.text


@pytest.mark.slow
def test_credentials_that_stay_expired_end_the_job_and_are_named_without_their_value(
    made: MadeSet,
    proxy: FaultProxy,
    rotating: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fetch, "OUTAGE_S", 1.5)
    caplog.set_level(logging.INFO)

    def expire() -> None:
        proxy.expired_key = "OLD"

    began = time.monotonic()
    with pytest.raises(
        TransientError, match="credentials of provider 'shared-credentials-file', profile 'default' have expired"
    ) as caught:
        epoch(made, tmp_path / "cache", expire)
    assert caught.value.exit_code == 75
    assert proxy.refused <= fetch.RANGES_AT_ONCE + time.monotonic() - began + 1
    for text in (str(caught.value), caplog.text):
        assert "secret-of" not in text
        assert "OLD" not in text
    proxy.expired_key = ""
    assert store.read(made.uri)  # and the process may go on with good ones
