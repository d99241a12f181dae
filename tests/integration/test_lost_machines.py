"""A command whose flow, whose Prefect server and whose machine are lost, once each in one run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import owner_calls
import pytest
from worker_machines import ONE_JOB, Machine, set_up_pool, until

from conf.schema import Services
from infra import store
from infra.launch import lease, workpool
from infra.services import processes, stack
from infra.services.stack import Addresses
from infra.tracking.client import library

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.workpool, pytest.mark.slow]

FAULT = "step@0:10=sleep"  # once: the job stands still there until its machine is lost
WORDS = ["train", "data.limit=600", "recipe.epochs=3", "recipe.checkpoint_every_steps=4"]  # 18 steps


def start(machine: Machine, services: Addresses, name: str, *words: str) -> subprocess.Popen[str]:
    """Starts ``effnet train`` on a machine, in a storage and an experiment of their own."""
    places = [f"services.{service}={getattr(services, service)}" for service in ("s3", "prefect", "mlflow")]
    places += [f"storage=s3://effnet/{name}", f"experiment={name}"]
    argv = [sys.executable, "-m", "flows", *WORDS, *places, *words]
    machine.output.unlink(missing_ok=True)
    with machine.output.open("w") as output:
        return subprocess.Popen(
            argv, cwd=machine.folder, env=machine.env, stdout=output, stderr=subprocess.STDOUT, text=True
        )


def restart_prefect(services_dir: Path) -> None:
    """Kills the server without a warning and starts it again."""
    server = processes.running(services_dir / "services", "prefect")
    assert server is not None
    os.killpg(server.pid, 9)
    until(lambda: processes.running(services_dir / "services", "prefect") is None)
    stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=("prefect",))


def objects(name: str, end: str) -> list[str]:
    """Addresses of the objects of that end in the run folders of a storage."""
    return [uri for uri in store.list_uris(f"s3://effnet/{name}/jobs") if uri.endswith(end)]


def test_a_training_ends_once_and_with_the_same_bits_though_flow_server_and_machine_are_lost(
    services: Addresses, services_dir: Path, tmp_path: Path
) -> None:
    set_up_pool(services, services_dir)
    desk, *workers = (Machine(tmp_path / name) for name in ("desk", "one", "two"))
    assert start(desk, services, "undisturbed").wait(600) == 0, desk.output.read_text()
    [undisturbed] = objects("undisturbed", "/result.json")

    for worker in workers:
        worker.env["FAULT"] = FAULT
        worker.start("--name", worker.folder.name, *ONE_JOB)
    flow = start(desk, services, "lost", "launch.engine=workpool")
    try:
        until(lambda: objects("lost", f"/faults/{FAULT}"))
        [job_uri] = (uri.removesuffix(f"/faults/{FAULT}") for uri in objects("lost", f"/faults/{FAULT}"))
        first = lease.last_worker(job_uri)
        flow.kill()
        flow.wait()
        flow = start(desk, services, "lost", "launch.engine=workpool")
        until(lambda: re.search(r"step \d+/18", desk.output.read_text()))  # it has adopted the job
        restart_prefect(services_dir)
        next(worker for worker in workers if worker.folder.name == first).lose()
        assert flow.wait(600) == 0, desk.output.read_text()
    finally:
        flow.kill()
        flow.wait()
        for worker in workers:
            worker.close()

    assert objects("lost", "/config.yaml") == [f"{job_uri}/config.yaml"]
    assert store.read_json(f"{job_uri}/result.json")["state_sha256"] == store.read_json(undisturbed)["state_sha256"]
    assert {first, lease.last_worker(job_uri)} == {"one", "two"}
    key = job_uri.rpartition("/")[2]
    folders = [worker.folder / "runs" / "jobs" / key for worker in workers]
    assert [(folder / "log.txt").exists() for folder in folders] == [True, True]
    assert [(folder / "log.1.txt").exists() for folder in folders] == [False, False], "no machine started it twice"
    query = {"flow_runs": {"tags": {"all_": [f"{workpool.TAG}:{key}"]}}, "sort": "EXPECTED_START_TIME_ASC"}
    states = [run["state_type"] for run in owner_calls.prefect("POST", "/flow_runs/filter", query)[1]]
    assert states == ["CRASHED", "COMPLETED"]
    experiment = library().MlflowClient().get_experiment_by_name("lost")
    [run] = library().MlflowClient().search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    query = {"flow_runs": {"name": {"any_": ["train b0"]}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    done = [run["parameters"]["overrides"] for run in owner_calls.prefect("POST", "/flow_runs/filter", query)[1]]
    ours = ["storage=s3://effnet/lost", "storage=s3://effnet/undisturbed"]
    stores = sorted(word for words in done for word in words if word in ours)
    assert stores == ours
