"""Jobs through ``launch.engine=slurm`` on a real Slurm of two nodes (``tests/support/slurm_cluster.py``)."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import slurm_cluster
from slurm_cluster import Cluster
from training_rig import End, Rig

from conf import compose, schema
from conf.schema import Launch, Slurm
from infra import errors, store
from infra.launch import slurm
from infra.launch.job import JobSpec
from tasks.jobs import MODULES, JobRun
from tasks.registry.prune import is_listed
from tasks.supervise import run_job

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.slurm]
PATIENCE_S = 150


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if absent := slurm_cluster.missing():
        pytest.skip(f"no {', '.join(absent)}: apt-get install slurm-wlm munge")
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", made.configuration)
        patch.setattr(slurm, "POLL_S", 0.5)
        try:
            made.start()
            yield made
        finally:
            made.stop()


def two_nodes(rig: Rig, name: str, **launch: Any) -> tuple[JobRun, schema.Config]:
    """The rig's job on two nodes, one rank on each."""
    how = {"engine": "slurm", "nnodes": 2, "nproc_per_node": 1, "threads_per_proc": 1}
    return rig.supervised(name, **{**how, **launch})


def spec_of(run: JobRun, config: schema.Config) -> JobSpec:
    store.write(f"{run.job_uri}/config.yaml", compose.to_yaml(run.job).encode())
    return JobSpec(run.key, run.label, MODULES[run.job.kind], run.job_uri, config.launch, Path(config.run_dir))


def wait(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def step_of(run: JobRun) -> int:
    status = f"{run.job_uri}/status.json"
    return int(store.read_json(status).get("step", 0)) if store.exists(status) else 0


def outputs(run: JobRun, config: schema.Config) -> list[str]:
    """Names of the files of output: one for each job that Slurm started."""
    return [path.name for path in Path(config.run_dir, "jobs", run.key).glob("slurm-*.txt")]


@pytest.mark.parametrize(
    ("launch", "refusal"),
    [
        ({"slurm": Slurm(partition="nowhere")}, "sbatch refuses the job: allocation failure: Invalid partition"),
        ({"nnodes": 3}, "sbatch refuses the job: allocation failure: Requested node configuration is not available"),
        ({"gpus_per_node": 3}, "Requested node configuration is not available"),
        ({"slurm": Slurm(constraint="h100")}, "Invalid feature specification"),
        ({"slurm": Slurm(time="long")}, "Invalid --time specification"),
        ({"slurm": Slurm(options=["--no-such"])}, "Try .sbatch --help. for more information"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused_before_anything_is_submitted(
    cluster: Cluster, launch: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(errors.ConfigError, match=refusal):
        slurm.check(Launch(engine="slurm", **launch))
    assert cluster.command("squeue", "--noheader") == ""


def test_a_request_that_the_cluster_can_fulfil_is_accepted(cluster: Cluster) -> None:
    slurm.check(Launch(engine="slurm", nnodes=2, gpus_per_node=2, cpus_per_node=2, slurm=Slurm(partition="gpu")))


def test_a_job_is_queued_once_found_by_its_key_and_removed_by_its_own_supervisor_only(
    cluster: Cluster, rig: Rig
) -> None:
    cluster.command("scontrol", "update", "PartitionName=gpu", "State=DOWN")  # nothing starts
    try:
        spec = spec_of(*two_nodes(rig, "slurm-queued"))
        assert slurm.find(spec) is None
        with ThreadPoolExecutor(2) as threads:
            first, second = sorted(threads.map(slurm.submit, [spec, spec]), key=lambda job: job.adopted)
        assert (first.job_id, first.adopted, second.adopted) == (second.job_id, False, True)
        assert cluster.command("squeue", "--noheader", "--format=%j") == f"{spec.key}\n"
        assert slurm.find(dataclasses.replace(spec, job_uri=f"{spec.job_uri}-of-another-store")) is None
        found = slurm.find(spec)
        assert found is not None
        assert (found.job_id, found.adopted) == (first.job_id, True)
        slurm.cancel(found)
        assert slurm.poll(first) is None
        assert first.queued
        settings = dataclasses.replace(compose.compose([f"run_dir={spec.run_dir}"]), launch=spec.launch)
        assert is_listed(spec.job_uri, settings, set()), "prune keeps it"
        slurm.cancel(first)
        assert cluster.command("squeue", "--noheader") == ""
        assert slurm.find(spec) is None
        assert not is_listed(spec.job_uri, settings, set())
        with pytest.raises(errors.JobError, match="was cancelled in Slurm"):
            slurm.poll(first)
    finally:
        cluster.command("scontrol", "update", "PartitionName=gpu", "State=UP")


def test_a_job_that_can_never_start_is_refused_with_the_reason_and_removed(
    cluster: Cluster, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.command("scontrol", "update", "PartitionName=gpu", "MaxTime=10")
    try:
        run, config = two_nodes(rig, "slurm-never", slurm=Slurm(time="20"))
        with pytest.raises(errors.ConfigError, match=r"can never start: PartitionTimeLimit"):
            asyncio.run(run_job(run, config, ""))
        assert cluster.command("squeue", "--noheader") == ""
    finally:
        cluster.command("scontrol", "update", "PartitionName=gpu", "MaxTime=INFINITE")


@pytest.mark.slow
def test_the_end_of_the_output_is_in_the_store_where_the_nodes_share_no_folder(cluster: Cluster, rig: Rig) -> None:
    """The folder is removed while the job waits, so that its node has none as it starts, and again at its end."""
    run, config = two_nodes(rig, "slurm-apart", max_restarts=0, slurm=Slurm(options=["--hold"]))
    run = dataclasses.replace(run, job=dataclasses.replace(run.job, manifest_uri=f"{run.job_uri}/nothing"))
    spec = spec_of(run, config)
    job = slurm.submit(spec)
    shutil.rmtree(spec.run_dir)
    cluster.command("scontrol", "release", str(job.job_id))
    wait(lambda: slurm.poll(job) is not None)
    assert slurm.poll(job) not in (0, None)
    assert Path(job.log).exists()
    shutil.rmtree(spec.run_dir)
    assert "nothing" in slurm.logs(job)


def test_two_nodes_end_with_the_bits_of_one_machine(cluster: Cluster, rig: Rig, reference: End) -> None:
    run, config = two_nodes(rig, "slurm-two")
    result = asyncio.run(run_job(run, config, ""))
    assert result["state_sha256"] == reference.sha256
    assert len(outputs(run, config)) == 1
    assert not Path(config.run_dir, "jobs", run.key, "scratch").exists()


@pytest.mark.slow
def test_a_cancelled_job_saves_its_state_and_frees_the_queue(cluster: Cluster, rig: Rig, reference: End) -> None:
    run, config = two_nodes(rig, "slurm-cancelled")

    async def cancel_in_mid_training() -> float:
        supervisor = asyncio.ensure_future(run_job(run, config, ""))
        while step_of(run) < 5:
            await asyncio.sleep(0.1)
        began = time.monotonic()
        supervisor.cancel()
        with pytest.raises(asyncio.CancelledError):
            await supervisor
        assert cluster.command("squeue", "--noheader") == ""
        return time.monotonic() - began

    assert asyncio.run(cancel_in_mid_training()) < 10
    assert store.read_json(f"{run.job_uri}/status.json")["state"] == "preempted"
    assert asyncio.run(run_job(run, config, ""))["state_sha256"] == reference.sha256


@pytest.mark.slow
@pytest.mark.fault
def test_a_job_whose_supervisor_was_killed_is_adopted(cluster: Cluster, rig: Rig, reference: End) -> None:
    run, config = two_nodes(rig, "slurm-adopted")
    program = (
        "import asyncio, pickle, sys\nfrom tasks.supervise import run_job\n"
        "asyncio.run(run_job(*pickle.load(sys.stdin.buffer), ''))"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    assert supervisor.stdin is not None
    supervisor.stdin.write(pickle.dumps((run, config)))
    supervisor.stdin.close()
    wait(lambda: step_of(run) > 3)
    supervisor.kill()
    supervisor.wait()
    assert asyncio.run(run_job(run, config, ""))["state_sha256"] == reference.sha256
    assert len(outputs(run, config)) == 1


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_job_whose_node_was_killed_is_requeued_and_resumes(
    cluster: Cluster, rig: Rig, reference: End, node: str
) -> None:
    """The first node runs the script, and Slurm requeues the job; if it is another one, the script does.

    Slurm notices a loss after about 30 s, and holds a requeued job for two minutes, which are skipped here.
    """
    run, config = two_nodes(rig, f"slurm-lost-{node}", max_restarts=0)

    async def lose_a_node() -> dict[str, Any]:
        supervisor = asyncio.ensure_future(run_job(run, config, ""))
        while step_of(run) < 20:
            await asyncio.sleep(0.1)
        cluster.kill_node(node)
        while not cluster.state_of(node).startswith("down"):
            await asyncio.sleep(0.5)
        cluster.start_node(node)
        while not supervisor.done():
            await asyncio.sleep(1)
            for number in cluster.command("squeue", "--noheader", "--states=PENDING", "--format=%i").split():
                cluster.command("scontrol", "update", f"JobId={number}", "StartTime=now")
        return await supervisor

    assert asyncio.run(lose_a_node())["state_sha256"] == reference.sha256
    assert len(outputs(run, config)) == 1  # the same job
    assert store.read_json(f"{run.job_uri}/status.json")["resumed_at"] >= 10
