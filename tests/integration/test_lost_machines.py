"""A job whose flow, server and machine are lost, once each, ends as the undisturbed one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import owner_calls
import pytest
from checkout import ROOT
from training_rig import End, Rig
from worker_machines import WORDS, Machine, described, flow_runs, set_up_pool, step, until

from conf import compose
from conf.schema import Services
from infra.launch import lease
from infra.services import deployments, processes, stack
from infra.services.stack import Addresses

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.workpool, pytest.mark.slow]
FLOW = """
import asyncio, sys
from pathlib import Path
from conf import compose, schema
from tasks.jobs import name_job
from tasks.supervise import run_job
config = compose.compose(sys.argv[2:])
run = name_job(config, compose.from_yaml(schema.Job, Path(sys.argv[1]).read_text()), "lost", "lost of the rig")
print(asyncio.run(run_job(run, config, ""))["state_sha256"])
"""


@pytest.fixture
def impatient_server(services: Addresses, services_dir: Path) -> Iterator[None]:
    """The server with our deployments; it gives up flow runs after 45 s without a heartbeat, not after 120 s."""
    set_up_pool(services, services_dir)
    query = {"automations": {"name": {"any_": [deployments._AUTOMATION]}}}
    [automation] = owner_calls.prefect("POST", "/automations/filter", query)[1]
    body = {key: automation[key] for key in ("name", "trigger", "actions")}
    path = f"/automations/{automation['id']}"
    owner_calls.prefect("PUT", path, {**body, "trigger": {**body["trigger"], "within": 45}})
    yield
    owner_calls.prefect("PUT", path, body)


def test_a_job_ends_once_and_with_the_same_bits_though_flow_server_and_machine_are_lost(
    impatient_server: None, rig: Rig, reference: End, services_dir: Path, tmp_path: Path
) -> None:
    run, _ = described(rig, "lost", tmp_path)
    (tmp_path / "job.yaml").write_text(compose.to_yaml(run.job))

    def start_flow() -> subprocess.Popen[str]:
        words = [*WORDS, f"storage={rig.storage}", f"run_dir={tmp_path}"]
        argv = [sys.executable, "-c", FLOW, str(tmp_path / "job.yaml"), *words]
        env = {**os.environ, "PYTHONPATH": f"{ROOT}"}
        return subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)

    machines = [Machine(tmp_path / name) for name in ("one", "two")]
    for machine in machines:
        machine.env["FAULT"] = "step@0:15=sleep"  # once: the job waits there until its machine is lost
        machine.start("--name", machine.folder.name, "launch.nproc_per_node=2")
    flow = start_flow()
    try:
        until(lambda: step(run) == 14)
        first = lease.last_worker(run.job_uri)
        flow.kill()
        flow.wait()
        flow = start_flow()  # adopts the job

        server = processes.running(services_dir / "services", "prefect")
        assert server is not None
        os.killpg(server.pid, 9)
        until(lambda: processes.running(services_dir / "services", "prefect") is None)
        stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=("prefect",))

        assert flow_runs(run) == ["RUNNING"]
        next(machine for machine in machines if machine.folder.name == first).lose()
        shown, _ = flow.communicate(timeout=240)
        assert shown.strip() == reference.sha256
        assert {first, lease.last_worker(run.job_uri)} == {"one", "two"}
        assert flow_runs(run) == ["CRASHED", "COMPLETED"]
    finally:
        flow.kill()
        for machine in machines:
            machine.close()
