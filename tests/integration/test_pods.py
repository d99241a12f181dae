"""Jobs through ``launch.engine=workpool`` in pods of a work pool of type kubernetes.

Server and worker are Prefect's own; the cluster is a stand-in (``tests/support/kubernetes_cluster.py``). Skipped where
its package is not installed: effnet does not need it, and each Prefect server would import it, which takes 3.7 s.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import owner_calls
import pytest
import yaml
from checkout import ROOT
from kubernetes_cluster import IMAGE, Cluster
from training_rig import End, Rig
from worker_machines import CREDENTIALS, described, step, until

from infra import store
from infra.launch import workpool
from infra.launch.job import write_request
from infra.services.stack import Addresses
from tasks.supervise import build_spec, run_job

pytest.importorskip("prefect_kubernetes", reason="the worker of such a pool: pip install prefect-kubernetes")
pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.kubernetes, pytest.mark.workpool]
POOL, DEPLOYMENT = "pods-of-the-tests", "job-in-a-pod"


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
    deployment = owner_calls.prefect("GET", f"/deployments/name/job/{DEPLOYMENT}")[1]
    owner_calls.prefect("DELETE", f"/deployments/{deployment['id']}")
    owner_calls.prefect("DELETE", f"/work_pools/{POOL}")


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
    write_request(run.job_uri, run.job)
    job = workpool.submit(build_spec(run, config))
    until(lambda: step(run) > 3)
    workpool.cancel(job)
    assert workpool.poll(job) == 143
    until(lambda: store.read_json(f"{run.job_uri}/status.json")["state"] == "preempted")
