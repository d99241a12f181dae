"""The lease of a job, on the file system and on the real object store."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conf import schema
from infra import store
from infra.errors import TransientError
from infra.launch import lease, local
from infra.launch.devices import Devices
from infra.launch.job import JobSpec
from infra.launch.local import Command
from infra.store import conditional

pytestmark = pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=pytest.mark.services)])


@pytest.fixture
def uri(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The run folder of a job that has never run."""
    root = f"file://{tmp_path}/store" if kind == "file" else request.getfixturevalue("object_store")
    return store.join(root, "leases", tmp_path.name)


@pytest.fixture
def spec(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    """A job that only sleeps."""
    job = JobSpec("key", "the job", "models.train", uri, schema.Launch(), tmp_path / "here")

    def sleep(spec: JobSpec, devices: Devices) -> Command:
        return Command(["sleep", "60"], devices.environment, local.job_folder(spec))

    monkeypatch.setattr(local, "build_command", sleep)
    return job


def until(what: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 15
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_of_concurrent_machines_exactly_one_gets_the_lease(uri: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda number: lease.acquire(uri, f"machine {number}"), range(8)))
        [first] = [held for held in taken if held]
        first.release()
        taken = list(threads.map(lambda number: lease.acquire(uri, f"machine {number}"), range(8)))
    assert len([held for held in taken if held]) == 1


def test_a_version_is_replaced_once_and_an_object_that_is_gone_is_not_written(uri: str) -> None:
    first = conditional.replace(f"{uri}/x", b"1", conditional.ABSENT)
    assert first
    assert conditional.replace(f"{uri}/x", b"2", conditional.ABSENT) is None
    second = conditional.replace(f"{uri}/x", b"2", first)
    assert second
    assert conditional.replace(f"{uri}/x", b"3", first) is None
    assert store.read(f"{uri}/x") == b"2"
    store.delete(f"{uri}/x")
    assert conditional.replace(f"{uri}/x", b"3", second) is None
    assert conditional.read(f"{uri}/x") is None


def test_a_lease_is_refused_to_others_until_it_is_given_back(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lease.WORKER, "one")
    held = lease.acquire(uri, "a")
    assert held is not None
    assert lease.acquire(uri, "b") is None
    assert (lease.holder_elsewhere(uri, "b"), lease.holder_elsewhere(uri, "a")) == ("one", "")
    assert lease.acquire(uri, "a") is not None  # another supervisor in the same folder, whose lock decides
    assert held.renew()
    held.release()
    assert lease.holder_elsewhere(uri, "b") == ""
    assert lease.acquire(uri, "b") is not None
    assert not held.renew()


def test_a_lease_that_is_not_renewed_expires_by_the_clock_of_the_store(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 3.0)
    held = lease.acquire(uri, "a")
    assert held is not None
    for _ in range(4):
        time.sleep(1)
        assert held.renew()
        assert lease.acquire(uri, "b") is None
    if uri.startswith("s3:"):  # this machine's clock does not matter
        monkeypatch.setattr(time, "time", lambda: 0.0)
    taken: list[lease.Lease] = []
    assert until(lambda: taken.extend(filter(None, [lease.acquire(uri, "b")])) or taken)
    assert not held.renew()
    assert taken[0].renew()


def test_the_worker_that_ran_last_is_remembered(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lease.last_worker(uri) == ""
    monkeypatch.setenv(lease.WORKER, "one")
    held = lease.acquire(uri, "a")
    assert held is not None
    held.release()
    assert lease.last_worker(uri) == "one"


def test_a_damaged_lease_expires_as_any_other(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    store.write(f"{uri}/lease.json", b"{")
    assert lease.acquire(uri, "a") is None
    assert until(lambda: lease.acquire(uri, "a"))


def test_a_job_that_another_machine_runs_is_adopted_and_not_started(spec: JobSpec) -> None:
    held = lease.acquire(spec.job_uri, "elsewhere")
    assert held is not None
    with pytest.raises(TransientError, match=r"the job: .* has just started this job"):
        local.submit(spec)
    adopted = local.find(spec)
    assert adopted is not None
    assert (adopted.adopted, local.poll(adopted), adopted.place) == (True, None, lease.worker_name())
    local.cancel(adopted)
    assert local.poll(adopted) is None
    held.release()
    assert until(lambda: local.poll(adopted) == 0)
    assert local.find(spec) is None


def test_a_job_gives_its_lease_back_at_its_end(spec: JobSpec) -> None:
    job = local.submit(spec)
    assert lease.acquire(spec.job_uri, "elsewhere") is None
    assert until(lambda: local.find(spec))  # its guard starts
    adopted = local.find(spec)
    assert adopted is not None
    assert (adopted.adopted, adopted.elsewhere) == (True, "")
    local.cancel(job)
    assert lease.acquire(spec.job_uri, "elsewhere") is not None


def test_the_end_of_a_job_s_log_is_kept_in_its_run_folder(
    spec: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "KEPT_BYTES", 8)
    printed = Command(["echo", "rank 0: started"], {}, local.job_folder(spec))
    monkeypatch.setattr(local, "build_command", lambda *_: printed)
    job = local.submit(spec)
    assert until(lambda: local.poll(job) is not None)
    local.cancel(job)
    assert store.read(store.join(spec.job_uri, local.LOG_OBJECT)) == b"started\n"


def test_a_job_whose_lease_was_taken_is_killed(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    job = local.submit(spec)
    time.sleep(1)
    assert local.poll(job) is None  # renewed several times
    monkeypatch.setattr(lease, "LEASE_S", 0.0)
    store.write(f"{spec.job_uri}/lease.json", lease._content("elsewhere", "two", released=False))
    assert until(lambda: local.poll(job) == 128 + 9)
    local.cancel(job)
    assert lease.last_worker(spec.job_uri) == "two"


def test_every_machine_of_a_job_on_several_starts_it(spec: JobSpec) -> None:
    launch = schema.Launch(nnodes=2, rendezvous="here:1")
    several = JobSpec("key", "the job", "models.train", spec.job_uri, launch, spec.run_dir)
    assert lease.acquire(spec.job_uri, "elsewhere") is not None
    assert local.find(several) is None
    local.cancel(local.submit(several))
