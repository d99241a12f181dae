"""Jobs through ``launch.engine=workpool`` on a real Prefect server and a real worker."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from training_rig import End, Rig
from worker_machines import ONE_JOB, Machine

from conf import compose, schema
from conf.schema import Services
from flows.cli import session
from flows.configure import worker_environment
from infra import store
from infra.errors import ConfigError
from infra.launch import lease, workpool
from infra.launch.job import JobSpec
from infra.services import stack
from infra.services.stack import Addresses
from tasks.jobs import MODULES, JobRun, name_job
from tasks.registry.prune import is_listed
from tasks.supervise import run_job

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.workpool]
PATIENCE_S = 120


def described(rig: Rig, name: str, run_dir: Path) -> tuple[JobRun, schema.Config]:
    """The rig's job under its key, described in its run folder."""
    config = compose.compose(["profile=laptop", f"storage={rig.storage}", f"run_dir={run_dir}"])
    config.launch = dataclasses.replace(config.launch, engine="workpool", nproc_per_node=2, threads_per_proc=1)
    run = name_job(config, rig.job, name, f"{name} of the rig")
    store.write(f"{run.job_uri}/config.yaml", compose.to_yaml(run.job).encode())
    return run, config


def spec_of(run: JobRun, config: schema.Config, run_dir: Path) -> JobSpec:
    return JobSpec(run.key, run.label, MODULES[run.job.kind], run.job_uri, config.launch, run_dir)


def wait(what: Callable[[], object], value: object = True) -> None:
    """Waits until ``what()`` is ``value``; a failure shows what it was instead."""
    deadline = time.monotonic() + PATIENCE_S
    while (last := what()) != value:
        assert time.monotonic() < deadline, f"{last}, not {value}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def pool(services: Addresses, services_dir: Path) -> Iterator[Path]:
    """The server with its deployments, and no worker."""
    settings = worker_environment(compose.compose([f"run_dir={services_dir}"]), [])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=("worker",))
        stack.down(services_dir, only=["worker"])
        stack.up(services_dir, Services(), jobs_at_once=2, say=print, only=("prefect",))  # as any command may set it
        yield services_dir


@pytest.fixture(scope="module")
def worker(pool: Path) -> Iterator[Path]:
    """The run folder of a running worker."""
    stack.up(pool, Services(), jobs_at_once=1, say=print, only=("worker",))
    yield pool
    stack.down(pool, only=["worker"])


def test_a_server_without_our_deployments_is_named_with_what_to_do(
    services: Addresses, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workpool, "DEPLOYMENT", "job/of-others")
    refusal = "has no deployment job/of-others; `effnet deploy` registers it"
    with pytest.raises(ConfigError, match=refusal):
        workpool.submit(spec_of(*described(rig, "nowhere", tmp_path), tmp_path))
    words = ["launch.engine=workpool", f"storage={rig.storage}", f"run_dir={tmp_path}"]
    words += [f"services.{name}={getattr(services, name)}" for name in ("s3", "prefect", "mlflow")]
    with mock.patch.dict(os.environ), pytest.raises(ConfigError, match=refusal):
        session.run("train", compose.compose(words), words)  # before it makes shards


@pytest.mark.slow
def test_a_job_is_queued_once_found_by_its_key_and_cancelled_by_its_own_supervisor_only(
    pool: Path, rig: Rig, tmp_path: Path
) -> None:
    spec = spec_of(*described(rig, "queued", tmp_path), tmp_path)
    assert workpool.find(spec) is None
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(workpool.submit, [spec, spec])
    assert first.run_id == second.run_id
    assert workpool.submit(spec).run_id == first.run_id, "also once the flow run is there"
    found = workpool.find(spec)
    assert found is not None
    assert (found.run_id, found.adopted, found.queued) == (first.run_id, True, True)
    workpool.cancel(found)
    assert workpool.poll(first) is None
    settings = dataclasses.replace(compose.compose([f"run_dir={tmp_path}"]), launch=spec.launch)
    assert is_listed(spec.job_uri, settings, set()), "prune keeps it"
    workpool.cancel(first)
    assert workpool.poll(first) == 143
    assert workpool.find(spec) is None
    assert not is_listed(spec.job_uri, settings, set())
    again = workpool.submit(spec)
    assert again.run_id != first.run_id
    workpool.cancel(again)


@pytest.mark.slow  # test_workers.py: two jobs on two workers
def test_a_job_on_a_worker_comes_to_the_bits_of_one_on_this_machine(
    worker: Path, rig: Rig, reference: End, tmp_path: Path
) -> None:
    run, config = described(rig, "pooled", tmp_path)
    result = asyncio.run(run_job(run, config, ""))
    assert result["state_sha256"] == reference.sha256
    assert not (tmp_path / "jobs").exists()  # nothing ran here
    assert (worker / "jobs" / run.key / "log.txt").exists()


@pytest.mark.slow
def test_a_second_job_waits_in_the_queue_while_one_runs(worker: Path, rig: Rig, tmp_path: Path) -> None:
    specs = [spec_of(*described(rig, name, tmp_path), tmp_path) for name in ("running", "waiting")]
    first = workpool.submit(specs[0])
    wait(lambda: workpool.poll(first) is None and not first.queued)
    second = workpool.submit(specs[1])  # only now: of two that wait, Prefect starts either
    assert workpool.poll(second) is None
    assert second.queued
    workpool.cancel(second)
    workpool.cancel(first)


@pytest.mark.slow
def test_a_worker_beside_the_embedded_one_takes_the_job_that_this_has_no_room_for_and_outlives_it(
    worker: Path, rig: Rig, tmp_path: Path
) -> None:
    beside = Machine(tmp_path / "beside")
    # Long enough that on a busy machine the first still runs when the second begins.
    long = dataclasses.replace(
        rig, job=dataclasses.replace(rig.job, recipe=dataclasses.replace(rig.job.recipe, epochs=500))
    )
    beside.start("--name", "beside", *ONE_JOB)
    try:
        beside.wait_until_it_takes_jobs()
        described_jobs = [described(long, name, tmp_path) for name in ("near", "far")]
        jobs = [workpool.submit(spec_of(run, config, tmp_path)) for run, config in described_jobs]
        places = {"beside", lease.worker_name()}
        wait(lambda: {lease.last_worker(run.job_uri) for run, _ in described_jobs}, places)
        assert [workpool.poll(job) for job in jobs] == [None, None], "both run at the same time"
        placed = {
            lease.last_worker(run.job_uri): (run, job) for (run, _), job in zip(described_jobs, jobs, strict=True)
        }
        (_, here), (far_run, far) = placed[lease.worker_name()], placed["beside"]
        lines: list[str] = []
        assert stack.down(worker, only=["worker"], say=lines.append) == ["worker"]
        assert workpool.poll(here) == 143
        assert workpool.poll(far) is None, "a worker elsewhere keeps its job"
        assert lines == [f"left running: {far_run.label} on worker beside"]
        stack.up(worker, Services(), jobs_at_once=1, say=print, only=("worker",))
        workpool.cancel(far)
    finally:
        beside.close()


@pytest.mark.slow
def test_a_cancelled_job_saves_its_state_on_its_worker(worker: Path, rig: Rig, tmp_path: Path) -> None:
    run, config = described(rig, "cancelled", tmp_path)
    job = workpool.submit(spec_of(run, config, tmp_path))
    status = f"{run.job_uri}/status.json"
    wait(lambda: store.exists(status) and store.read_json(status).get("step", 0) > 3)
    workpool.cancel(job)
    assert workpool.poll(job) == 143
    wait(lambda: store.read_json(status)["state"] == "preempted")


@pytest.mark.slow
def test_a_worker_of_another_version_refuses_the_job_and_says_why(worker: Path, rig: Rig, tmp_path: Path) -> None:
    run, config = described(rig, "other", tmp_path)
    changed = dataclasses.replace(run.job, split="all")  # another request, so another key
    store.write(f"{run.job_uri}/config.yaml", compose.to_yaml(changed).encode())
    job = workpool.submit(spec_of(run, config, tmp_path))
    with pytest.raises(ConfigError, match=r"the flow and this worker need the same version$"):
        wait(lambda: workpool.poll(job) is not None)
    workpool.cancel(job)  # at the end of its supervisor
