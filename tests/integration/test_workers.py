"""``effnet worker``: two workers as on two machines, which share only the three services."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_rig import End, Rig, processes_of
from worker_machines import ONE_JOB, Machine, described, flow_runs, set_up_pool, step

from infra.launch import lease
from infra.services import proctable
from infra.services.stack import Addresses
from tasks.supervise import run_job

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.workpool]


@pytest.fixture(scope="module")
def pool(services: Addresses, services_dir: Path) -> None:
    set_up_pool(services, services_dir)


@pytest.fixture(scope="module")
def machines(pool: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Machine]]:
    """Two workers that take one job each; `one` has two GPUs, as far as it can tell."""
    made = {
        "one": Machine(tmp_path_factory.mktemp("one") / "machine", gpus=2),
        "two": Machine(tmp_path_factory.mktemp("two") / "machine"),
    }
    for name, machine in made.items():
        machine.start("--name", name, *ONE_JOB)
    try:
        for machine in made.values():
            machine.wait_until_it_takes_jobs()
        yield made
    finally:
        for machine in made.values():
            machine.close()
        assert [pid for machine in made.values() for pid in machine.processes()] == []


@pytest.mark.slow
def test_two_jobs_run_on_two_machines_and_come_to_the_same_bits(
    machines: dict[str, Machine], rig: Rig, reference: End, tmp_path: Path
) -> None:
    runs = [described(rig, name, tmp_path) for name in ("left", "right")]
    visible: set[bytes] = set()

    async def look() -> None:
        while len(visible) < 2:
            for run, _ in runs:
                for pid in processes_of(run.job_uri):
                    words = [word for word in proctable.environment(pid) if word.startswith(b"CUDA_VISIBLE_DEVICES=")]
                    visible.update(words or [b"all of them"])
            await asyncio.sleep(0.5)

    async def both() -> list[dict[str, object]]:
        looking = asyncio.create_task(look())
        results = await asyncio.gather(*(run_job(run, config, "") for run, config in runs))
        looking.cancel()
        return results

    results = asyncio.run(both())
    assert {result["state_sha256"] for result in results} == {reference.sha256}
    assert {lease.last_worker(run.job_uri) for run, _ in runs} == {"one", "two"}
    assert visible == {b"CUDA_VISIBLE_DEVICES=0,1", b"CUDA_VISIBLE_DEVICES="}, "the second worker has no GPU"
    assert not (tmp_path / "jobs").exists()  # nothing ran here
    for run, _ in runs:
        folders = [m.folder / "runs" / "jobs" / run.key for m in machines.values()]
        assert [folder.exists() for folder in folders].count(True) == 1
        assert flow_runs(run) == ["COMPLETED"]


def test_a_worker_refuses_what_its_machine_or_its_server_lacks(pool: None, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")

    def line(*words: str) -> str:
        assert machine.start(*words).wait(60) == 2
        return machine.output.read_text().splitlines()[-1]

    assert "--gpus 1: this machine has no GPU; there is no GPU 1" in line("--gpus", "1")
    assert "has no work pool nowhere; set it up by `effnet deploy`" in line("--pool", "nowhere")
    del machine.env["MLFLOW_TRACKING_URI"]
    assert "no address of mlflow: set services.mlflow=URL or the variable MLFLOW_TRACKING_URI" in line()
    machine.env["PREFECT_API_AUTH_STRING"] = "effnet:wrong"
    assert "refuses the credentials" in line(f"services.mlflow={os.environ['MLFLOW_TRACKING_URI']}")


@pytest.mark.slow
def test_a_worker_that_is_stopped_saves_its_job_and_the_other_one_resumes_it(
    machines: dict[str, Machine], rig: Rig, reference: End, tmp_path: Path
) -> None:
    run, config = described(rig, "handed-over", tmp_path)

    async def hand_over() -> dict[str, object]:
        running = asyncio.create_task(run_job(run, config, ""))
        while await asyncio.to_thread(step, run) <= 12:  # a checkpoint is saved
            await asyncio.sleep(0.2)
        first = lease.last_worker(run.job_uri)
        machines[first].started.terminate()
        result = await running
        assert {first, lease.last_worker(run.job_uri)} == {"one", "two"}
        return result

    result = asyncio.run(hand_over())
    assert result["state_sha256"] == reference.sha256
    for name, machine in machines.items():
        if machine.started.poll() is not None:
            assert machine.processes() == []
            machine.start("--name", name, *ONE_JOB)
