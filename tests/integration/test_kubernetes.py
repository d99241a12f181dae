"""Jobs through ``launch.engine=kubernetes`` on a stand-in for a cluster (``tests/support/kubernetes_cluster.py``)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_cluster import IMAGE, Cluster
from training_rig import End, Rig, with_recipe

from conf import compose, schema
from conf.schema import Kubernetes, Launch
from infra import errors, store
from infra.launch import kubernetes, manifests
from infra.launch.job import JobSpec
from tasks.jobs import JobRun
from tasks.registry.prune import is_listed
from tasks.supervise import build_spec, run_job

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.kubernetes]


@pytest.fixture(scope="module")
def cluster(object_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    made = Cluster(tmp_path_factory.mktemp("kubernetes"), {"store": {name: os.environ[name] for name in names}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(made.start()))
        patch.setattr(kubernetes, "POLL_S", 0.3)
        yield made
        made.stop()


def two_pods(rig: Rig, name: str, **pods: Any) -> tuple[JobRun, schema.Config]:
    """The rig's job on two pods, one rank in each."""
    pods = {"image": IMAGE, "secrets": ["store"], **pods}
    how = {"nnodes": 2, "nproc_per_node": 1, "threads_per_proc": 1, "kubernetes": Kubernetes(**pods)}
    return rig.supervised(name, engine="kubernetes", **how)


def spec_of(run: JobRun, config: schema.Config) -> JobSpec:
    store.write(f"{run.job_uri}/config.yaml", compose.to_yaml(run.job).encode())
    return build_spec(run, config)


def step_of(run: JobRun) -> int:
    status = f"{run.job_uri}/status.json"
    return int(store.read_json(status).get("step", 0)) if store.exists(status) else 0


def test_two_pods_end_with_the_bits_of_one_machine(cluster: Cluster, rig: Rig, reference: End) -> None:
    run, config = two_pods(rig, "pods-two")
    result = asyncio.run(run_job(run, config, ""))
    assert result["state_sha256"] == reference.sha256
    assert compose.from_yaml(Launch, store.read(f"{run.job_uri}/launch.yaml")) == config.launch  # read by prune
    job = kubernetes.find(build_spec(run, config))
    assert job is None  # a finished one is not adopted
    assert len(cluster.pods[kubernetes.job_name(build_spec(run, config))]) == 2


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_job_whose_pod_was_killed_ends_with_the_same_bits(
    cluster: Cluster, rig: Rig, reference: End, index: int
) -> None:
    run, config = two_pods(rig, f"pods-lost-{index}")
    name = kubernetes.job_name(build_spec(run, config))

    async def lose_a_pod() -> dict[str, Any]:
        supervisor = asyncio.ensure_future(run_job(run, config, ""))
        while step_of(run) < 20:
            await asyncio.sleep(0.1)
        await asyncio.to_thread(cluster.kill_pod, name, index)
        return await supervisor

    assert asyncio.run(lose_a_pod())["state_sha256"] == reference.sha256
    assert sorted(pod.index for pod in cluster.pods[name]) == [0, 0, 1, 1]  # both started twice, by the same Job
    assert store.read_json(f"{run.job_uri}/status.json")["resumed_at"] >= 10


@pytest.mark.slow
def test_a_cancelled_job_saves_its_state_and_leaves_nothing_in_the_cluster(cluster: Cluster, rig: Rig) -> None:
    run, config = two_pods(rig, "pods-cancelled")
    name = kubernetes.job_name(build_spec(run, config))

    async def cancel_in_mid_training() -> float:
        supervisor = asyncio.ensure_future(run_job(run, config, ""))
        while step_of(run) < 5:
            await asyncio.sleep(0.1)
        assert name in cluster.services
        began = time.monotonic()
        supervisor.cancel()
        with pytest.raises(asyncio.CancelledError):
            await supervisor
        return time.monotonic() - began

    assert asyncio.run(cancel_in_mid_training()) < 10
    assert store.read_json(f"{run.job_uri}/status.json")["state"] == "preempted"
    assert name not in cluster.jobs
    assert name not in cluster.services


@pytest.mark.slow
def test_a_job_is_created_once_adopted_and_deleted_by_its_own_supervisor_only(cluster: Cluster, rig: Rig) -> None:
    spec = spec_of(*two_pods(rig, "pods-adopted"))
    assert kubernetes.find(spec) is None
    with ThreadPoolExecutor(2) as threads:
        first, second = sorted(threads.map(kubernetes.submit, [spec, spec]), key=lambda job: job.adopted)
    assert (first.name, first.adopted, second.adopted) == (second.name, False, True)
    kubernetes.cancel(second)
    assert kubernetes.poll(first) is None
    settings = dataclasses.replace(compose.compose([f"run_dir={spec.run_dir}"]), launch=spec.launch)
    assert is_listed(spec.job_uri, settings, set()), "prune keeps it"
    kubernetes.cancel(first)
    assert kubernetes.find(spec) is None
    assert not is_listed(spec.job_uri, settings, set())
    assert kubernetes.poll(first) == 0  # unknown to the cluster


def test_the_service_of_a_job_whose_supervisor_died_before_it_is_created_by_the_one_that_adopts_it(
    cluster: Cluster, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(*two_pods(rig, "pods-without-service"))

    class Killed(BaseException):
        """The supervisor's end."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(kubernetes, "_create_services", die)
        with pytest.raises(Killed):
            kubernetes.submit(spec)
    name = kubernetes.job_name(spec)
    assert name in cluster.jobs
    assert name not in cluster.services
    adopted = kubernetes.find(spec)
    assert adopted is not None
    assert cluster.services[name]["metadata"]["ownerReferences"][0]["uid"] == cluster.jobs[name]["metadata"]["uid"]
    kubernetes.cancel(dataclasses.replace(adopted, adopted=False))
    assert name not in cluster.services


@pytest.mark.slow
def test_an_error_that_no_retry_fixes_fails_the_job_and_the_next_start_replaces_it(cluster: Cluster, rig: Rig) -> None:
    run, config = two_pods(rig, "pods-refused")
    impossible = dataclasses.replace(run, job=with_recipe(rig.job, global_batch=63, batch_slices=3))
    with pytest.raises(errors.ConfigError, match=r"recipe\.batch_slices 3 cannot be distributed evenly over 2"):
        asyncio.run(run_job(impossible, config, ""))
    spec = build_spec(run, config)
    name = kubernetes.job_name(spec)
    uid = cluster.jobs[name]["metadata"]["uid"] if name in cluster.jobs else ""
    job = kubernetes.submit(spec_of(run, config))
    assert not job.adopted
    assert cluster.jobs[name]["metadata"]["uid"] != uid
    kubernetes.cancel(job)


@pytest.mark.parametrize(
    ("pods", "refusal"),
    [
        ({"image": "effnet:missing"}, "cannot start in default: ImagePullBackOff: stand-in"),
        ({"secrets": ["absent"]}, "cannot start in default: CreateContainerConfigError: stand-in"),
    ],
)
def test_a_missing_image_or_secret_is_named_and_nothing_is_left(
    cluster: Cluster, rig: Rig, pods: dict[str, Any], refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "_PULL_S", 1.0)
    run, config = two_pods(rig, f"pods-{next(iter(pods))}", **pods)
    with pytest.raises(errors.ConfigError, match=refusal):
        asyncio.run(run_job(run, config, ""))
    assert kubernetes.job_name(build_spec(run, config)) not in cluster.jobs


def test_an_image_that_cannot_be_pulled_now_is_waited_for(cluster: Cluster, rig: Rig) -> None:
    """Not every kubelet gets an answer of the registry at its first attempt."""
    job = kubernetes.submit(spec_of(*two_pods(rig, "pods-unpulled", image="effnet:missing")))
    while not job.reason:
        time.sleep(0.1)
        assert kubernetes.poll(job) is None
    assert (job.queued, job.reason) == (True, "ImagePullBackOff: stand-in: ImagePullBackOff")
    kubernetes.cancel(job)


@pytest.mark.slow
def test_a_job_of_which_one_pod_waits_for_a_node_is_waited_for(
    cluster: Cluster, rig: Rig, reference: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one waits at the rendezvous: neither of its timeouts ends it while the cluster adds a node."""
    run, config = two_pods(rig, "pods-one-of-two")
    config.launch.start_timeout_s = 4.0
    monkeypatch.setattr(cluster, "room", 1)

    async def add_a_node_late() -> dict[str, Any]:
        supervisor = asyncio.ensure_future(run_job(run, config, ""))
        await asyncio.sleep(8)
        assert not supervisor.done()
        config.launch.start_timeout_s = 300.0  # a busy machine starts both slowly
        cluster.room = 2
        return await supervisor

    assert asyncio.run(add_a_node_late())["state_sha256"] == reference.sha256


def test_the_program_of_a_configuration_that_gets_a_token_runs_once(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``aws eks get-token``, which takes a second: a supervisor of many jobs would do nothing else."""
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t"}}
    (program := tmp_path / "get-token").write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/calls\necho '{json.dumps(answer)}'\n"
    )
    program.chmod(0o700)
    configuration = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    how = {"apiVersion": answer["apiVersion"], "command": str(program), "interactiveMode": "Never"}
    configuration["users"] = [{"name": "test", "user": {"exec": how}}]
    (tmp_path / "config").write_text(yaml.safe_dump(configuration))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for _ in range(3):
        kubernetes.check(Launch(engine="kubernetes"))
    assert (tmp_path / "calls").read_text() == "x\n"


def test_a_flow_in_a_pod_uses_the_service_account_of_the_pod(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As infra/kubernetes/overlays/jobs has it."""
    import kubernetes as client_of_kubernetes

    address = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())["clusters"][0]["cluster"]["server"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.delenv("KUBECONFIG")

    def load(client_configuration: Any) -> None:
        client_configuration.host = address

    monkeypatch.setattr(client_of_kubernetes.config, "load_incluster_config", load)
    kubernetes.check(Launch(engine="kubernetes"))


@pytest.mark.slow
def test_an_image_of_another_version_is_refused(cluster: Cluster, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = two_pods(rig, "pods-other")
    monkeypatch.setattr(manifests.machine, "training_code", lambda: "0" * 16)  # of the flow
    with pytest.raises(errors.ConfigError, match=r"the image has another version of effnet .* than the flow \(0{16}\)"):
        asyncio.run(run_job(run, config, ""))


def test_a_namespace_that_the_cluster_does_not_have_is_refused_before_anything_is_created(cluster: Cluster) -> None:
    with pytest.raises(
        errors.ConfigError, match=r'404 namespaces "nowhere" not found; launch.kubernetes.namespace must'
    ):
        kubernetes.check(Launch(engine="kubernetes", kubernetes=Kubernetes(namespace="nowhere")))


def test_a_job_that_waits_for_a_gpu_says_so(
    cluster: Cluster, rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No refusal: a cluster may add nodes."""
    monkeypatch.setattr("tasks.supervise.FIRST_LOG_S", 0.0)
    run, config = rig.supervised("pods-gpu", engine="kubernetes", gpus_per_node=1, nproc_per_node=1)
    lines: list[str] = []
    monkeypatch.setattr("tasks.supervise.log.info", lambda text, *words, **_: lines.append(text % words))

    async def wait_for_a_line() -> None:
        supervisor = asyncio.ensure_future(run_job(run, config, ""))
        while not lines:
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)  # several polls
        supervisor.cancel()
        with pytest.raises(asyncio.CancelledError):
            await supervisor

    asyncio.run(asyncio.wait_for(wait_for_a_line(), 60))
    waits = "waits in the queue of launch.engine=kubernetes: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    assert lines == [f"{run.label}: {waits}"]
    assert kubernetes.job_name(build_spec(run, config)) not in cluster.jobs


def test_a_cluster_that_answers_is_accepted_and_one_that_does_not_is_named(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(cluster.jobs)
    kubernetes.check(Launch(engine="kubernetes"))
    assert set(cluster.jobs) == before
    configuration = Path(os.environ["KUBECONFIG"]).read_text()
    (tmp_path / "config").write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", configuration))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(errors.TransientError, match="the API server does not answer"):
        kubernetes.check(Launch(engine="kubernetes"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(errors.ConfigError, match="no cluster is configured"):
        kubernetes.check(Launch(engine="kubernetes"))
