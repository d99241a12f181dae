"""Jobs through ``launch.engine=workpool`` in pods of a work pool of type kubernetes.

Server and worker are Prefect's own; the cluster is a stand-in (``tests/support/kubernetes_cluster.py``). Skipped where
the package of the worker, which effnet does not need, is not installed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import owner_calls
import pytest
import yaml
from checkout import ROOT
from kubernetes_cluster import IMAGE, Cluster
from training_rig import End, Rig

from conf import compose, schema
from infra import store
from infra.launch import workpool
from infra.launch.job import JobSpec
from infra.services.stack import Addresses
from tasks.jobs import MODULES, JobRun, name_job
from tasks.supervise import run_job

pytest.importorskip("prefect_kubernetes", reason="the worker of such a pool: pip install prefect-kubernetes")
pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.kubernetes, pytest.mark.workpool]
POOL, DEPLOYMENT = "pods-of-the-tests", "job-in-a-pod"
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
PATIENCE_S = 150


@pytest.fixture(scope="module")
def cluster(services: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster in which a worker of Prefect starts a pod for each job."""
    folder = tmp_path_factory.mktemp("pods")
    entry = {"name": DEPLOYMENT, "description": "x", "entrypoint": "flows.job.job", "work_queue": "jobs"}
    (definitions := folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [entry]}))
    made = Cluster(folder, {"credentials": {name: os.environ[name] for name in CREDENTIALS}})
    settings = {
        **os.environ,
        "KUBECONFIG": str(made.start()),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED": "false",  # it watches what the stand-in has not
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    addresses = [f"services.{name}={getattr(services, name)}" for name in ("s3", "prefect", "mlflow")]
    pods = [f"launch.kubernetes.image={IMAGE}", "launch.kubernetes.secrets=[credentials]", "launch.nproc_per_node=2"]
    words = ["deploy", "--file", str(definitions), "--pods", POOL, "launch.engine=kubernetes", *pods, *addresses]
    subprocess.run([sys.executable, "-m", "flows", *words], env=settings, cwd=ROOT, check=True, timeout=120)
    start = [sys.executable, "-m", "prefect", "worker", "start", "--type", "kubernetes", "--pool", POOL]
    with (folder / "worker.txt").open("w") as output, pytest.MonkeyPatch.context() as patch:
        worker = subprocess.Popen(start, env=settings, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        patch.setattr(workpool, "DEPLOYMENT", f"job/{DEPLOYMENT}")
        yield made
        worker.terminate()
        worker.wait(60)
    made.stop()
    owner_calls.prefect("DELETE", f"/work_pools/{POOL}")


def described(rig: Rig, name: str, run_dir: Path) -> tuple[JobRun, schema.Config]:
    """The rig's job under its key, described in its run folder."""
    config = compose.compose(["profile=laptop", f"storage={rig.storage}", f"run_dir={run_dir}"])
    config.launch = dataclasses.replace(config.launch, engine="workpool", nproc_per_node=2, threads_per_proc=1)
    run = name_job(config, rig.job, name, f"{name} of the rig")
    store.write(f"{run.job_uri}/config.yaml", compose.to_yaml(run.job).encode())
    return run, config


def wait(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_job_in_a_pod_comes_to_the_bits_of_one_on_this_machine(
    cluster: Cluster, rig: Rig, reference: End, tmp_path: Path
) -> None:
    run, config = described(rig, "in-a-pod", tmp_path)
    assert asyncio.run(run_job(run, config, ""))["state_sha256"] == reference.sha256
    [(name, pods)] = cluster.pods.items()
    assert name.startswith("in-a-pod-of-the-rig")
    assert len(pods) == 1


@pytest.mark.slow
def test_a_cancelled_job_saves_its_state_in_its_pod(cluster: Cluster, rig: Rig, tmp_path: Path) -> None:
    run, config = described(rig, "cancelled-in-a-pod", tmp_path)
    spec = JobSpec(run.key, run.label, MODULES[run.job.kind], run.job_uri, config.launch, tmp_path)
    job = workpool.submit(spec)
    status = f"{run.job_uri}/status.json"
    wait(lambda: store.exists(status) and store.read_json(status).get("step", 0) > 3)
    workpool.cancel(job)
    assert workpool.poll(job) == 143
    wait(lambda: store.read_json(status)["state"] == "preempted")
