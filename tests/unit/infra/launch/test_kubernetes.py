"""The manifests of a job, checked strictly against the official schemas."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from conf import compose
from conf.schema import Kubernetes, Launch
from infra import errors
from infra.launch import kubernetes, manifests
from infra.launch.job import JobSpec

VERSION = "1.37"
FULL = Kubernetes(
    image="registry.example/effnet:1",
    namespace="team",
    secrets=["store", "more"],
    service_account="trainer",
    priority_class="high",
    queue="gpus",
    node_selector=["gpu=a100"],
    tolerations=["nvidia.com/gpu:NoSchedule", "team=vision", "spot"],
)


def spec_of(key: str = "train-x-1", storage: str = "s3://b/p", **launch: Any) -> JobSpec:
    how = Launch(**{"engine": "kubernetes", **launch})
    return JobSpec(key, "train x", "models.train", f"{storage}/jobs/{key}", how, Path("/nowhere"))


def described(spec: JobSpec) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(kubernetes.describe(spec)))


LAUNCHES: dict[str, dict[str, Any]] = {
    "one pod": {},
    "two pods": {"nnodes": 2, "nproc_per_node": 8, "gpus_per_node": 8, "cpus_per_node": 96, "memory_gb": 900},
    "every setting": {"nnodes": 2, "gpus_per_node": 1, "kubernetes": FULL},
}


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
def test_the_manifests_pass_the_strict_schemas(launch: dict[str, Any]) -> None:
    documents = described(spec_of(**launch))
    assert [document["kind"] for document in documents] == (["Service"] if "nnodes" in launch else []) + ["Job"]
    for document in documents:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_strict_schemas_refuse_a_misspelt_field() -> None:
    [job] = described(spec_of())
    wrong = copy.deepcopy(job)
    wrong["spec"]["backoffLimitt"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_a_pod_may_write_only_where_it_must_and_is_nobody_special() -> None:
    [job] = described(spec_of())
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"scratch": "/scratch", "tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    for name, value in ((v["name"], v["value"]) for v in container["env"]):
        if name in ("HOME", "EFFNET_CACHE", "EFFNET_JOB_FOLDER"):
            assert value.startswith("/scratch"), name


def test_credentials_are_references_and_nothing_of_this_machine_is_in_the_manifest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://store.example")
    spec = spec_of(nnodes=2, kubernetes=FULL)
    text = kubernetes.describe(spec)
    assert "canary" not in text
    assert sys.executable not in text
    assert "PYTHONPATH" not in text
    [container] = described(spec)[1]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}, {"secretRef": {"name": "more"}}]
    assert {"name": "AWS_ENDPOINT_URL_S3", "value": "https://store.example"} in container["env"]


def test_the_pods_of_a_work_pool_pass_the_strict_schema_and_their_caller_chooses_nothing() -> None:
    launch = Launch(engine="kubernetes", gpus_per_node=4, cpus_per_node=32, memory_gb=200, kubernetes=FULL)
    template = manifests.pool_template(launch, {"EFFNET_GPUS": "0,1,2,3"})
    assert template["variables"] == {"type": "object", "properties": {}, "additionalProperties": False}
    assert "{{" not in str(template)
    job = template["job_configuration"]["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    assert (pod.pop("parallelism"), pod.pop("completions")) == (
        1,
        1,
    )  # Prefect requires them where they have no meaning
    kubernetes_validate.validate(job, VERSION, strict=True)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    [container] = pod["containers"]
    assert "command" not in container
    assert "args" not in container  # Prefect's worker sets them
    assert container["resources"]["limits"] == {"cpu": "32", "memory": "200Gi", "nvidia.com/gpu": "4"}
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}, {"secretRef": {"name": "more"}}]
    assert {"name": "EFFNET_GPUS", "value": "0,1,2,3"} in container["env"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in pod["volumes"]


def test_errors_that_no_retry_fixes_fail_the_job_and_disruptions_do_not_count() -> None:
    [job] = described(spec_of(relaunches=2))
    fail, ignore = job["spec"]["podFailurePolicy"]["rules"]
    values = fail["onExitCodes"]["values"]
    assert values == [1, 2, 3, 4, 5, 6, 7, 10, 11]
    lasting = (errors.PreemptedError, errors.HungError, errors.LostError, errors.TransientError)
    assert not {kind.exit_code for kind in lasting} & set(values)
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert job["spec"]["backoffLimit"] == 2


def test_the_settings_of_a_cluster_are_where_kubernetes_reads_them() -> None:
    service, job = described(spec_of(nnodes=2, nproc_per_node=4, gpus_per_node=4, memory_gb=64, kubernetes=FULL))
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "4"}
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("trainer", "high")
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "vision"},
        {"key": "spot", "operator": "Exists"},
    ]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"]["suspend"] is True
    name = job["metadata"]["name"]
    assert service["metadata"]["name"] == pod["subdomain"] == name
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    endpoint = {variable["name"]: variable["value"] for variable in container["env"]}["PET_RDZV_ENDPOINT"]
    assert endpoint == f"{name}-0.{name}:29500"
    assert container["command"][:4] == ["python", "-m", "models.training.agent", "--nnodes=2"]
    assert not any(word.startswith("--rdzv-endpoint") for word in container["command"])


def test_the_name_is_a_dns_label_that_differs_from_store_to_store() -> None:
    names = [
        kubernetes.job_name(spec_of(key, storage))
        for key in ("train-x-1", "train-" + "very_Long.name" * 9)
        for storage in ("s3://b/p", "s3://b/q")
    ]
    assert len(set(names)) == 4
    for name in names:
        assert len(f"{name}-10000") <= 63
        assert kubernetes_name(name)


def kubernetes_name(name: str) -> bool:
    return name[0].isalpha() and name[-1].isalnum() and name.replace("-", "").isalnum() and name == name.lower()


@pytest.mark.parametrize(
    "word",
    [
        "namespace='A b'",
        "secrets=['a/b']",
        "queue=''",
        "image='a b'",
        "tolerations=['a b']",
        "node_selector=[gpu]",
        "ttl_s=-1",
        "shared_memory_gb=0",
    ],
)
def test_a_value_that_kubernetes_would_refuse_is_refused_before(word: str) -> None:
    with pytest.raises(compose.OverrideError, match=rf"launch\.kubernetes\.{word.partition('=')[0]}"):
        compose.compose(["launch.engine=kubernetes", f"launch.kubernetes.{word}"])


def test_a_quota_of_jobs_is_waited_for_and_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.client import ApiException

    def refuse(*_: object, **__: object) -> bytes:
        error = ApiException(status=403, reason="Forbidden")
        error.body = '{"message": "jobs.batch is forbidden: exceeded quota: team, requested: count/jobs.batch=1"}'
        raise error

    monkeypatch.setattr(kubernetes, "_answer", refuse)
    kubernetes.check(Launch(engine="kubernetes"))
    with pytest.raises(errors.QueueFullError, match=r"create_namespaced_job: 403 .* exceeded quota: team"):
        kubernetes.submit(spec_of())


def test_without_the_client_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(errors.ConfigError, match=r"pip install 'effnet\[kubernetes\]'"):
        kubernetes.check(Launch(engine="kubernetes"))
