"""The manifests of infra/kubernetes as kubectl renders them, checked strictly against the official schemas."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from checkout import ROOT
from matrix import with_slow_rest

from conf import compose

FOLDER = ROOT / "infra" / "kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"
VARIANTS = ("base", "overlays/gpu", "overlays/jobs")
Manifests = dict[tuple[str, str], dict[str, Any]]  # by kind and name


@pytest.fixture(scope="module")
def rendered() -> dict[str, Manifests]:
    manifests = {}
    for variant in VARIANTS:
        done = subprocess.run([KUBECTL, "kustomize", FOLDER / variant], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        documents = list(yaml.safe_load_all(done.stdout))
        manifests[variant] = {(document["kind"], document["metadata"]["name"]): document for document in documents}
        assert len(manifests[variant]) == len(documents)
    return manifests


@pytest.fixture(scope="module")
def secrets() -> dict[str, dict[str, str]]:
    done = subprocess.run(["sh", FOLDER / "make_secrets.sh"], capture_output=True, text=True, check=True)
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    return {document["metadata"]["name"]: document["stringData"] for document in documents}


def pods(manifests: Manifests) -> dict[str, dict[str, Any]]:
    workloads = {name: document for (_, name), document in manifests.items() if "template" in document.get("spec", {})}
    return {name: document["spec"]["template"] for name, document in workloads.items()}


def container_of(manifests: Manifests, name: str) -> dict[str, Any]:
    [container] = pods(manifests)[name]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("variant", with_slow_rest(VARIANTS))
def test_the_manifests_pass_the_strict_schemas(variant: str, rendered: dict[str, Manifests]) -> None:
    for document in rendered[variant].values():
        kubernetes_validate.validate(document, "1.37", strict=True)


def test_the_services_are_those_of_the_compose_file(rendered: dict[str, Manifests]) -> None:
    services = yaml.safe_load((ROOT / "infra" / "docker" / "compose.yaml").read_text())["services"]
    assert set(pods(rendered["base"])) == set(services) == set(pods(rendered["overlays/gpu"]))
    assert set(pods(rendered["overlays/jobs"])) == set(services) - {"worker"}


def test_every_service_selects_its_pods_and_a_port_that_they_open(rendered: dict[str, Manifests]) -> None:
    selected = set()
    for (kind, name), service in rendered["base"].items():
        if kind == "Service":
            template = pods(rendered["base"])[name]
            assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
            [port], [opened] = service["spec"]["ports"], container_of(rendered["base"], name)["ports"]
            assert port["port"] == opened["containerPort"]
            selected.add(name)
    assert selected == {"postgres", "s3", "prefect", "mlflow"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_have_no_privileges_and_write_only_to_volumes(variant: str, rendered: dict[str, Manifests]) -> None:
    """What the policy `restricted` of the namespace demands, and a read-only root file system."""
    for name, template in pods(rendered[variant]).items():
        pod, container = template["spec"], container_of(rendered[variant], name)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp"} | ({"/data"} if name != "postgres" else set()) <= mounts  # noqa: S108 - in the pod
        assert pod["automountServiceAccountToken"] is ((variant, name) == ("overlays/jobs", "flows"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_have_versions_and_only_workers_with_gpus_need_cuda(
    variant: str, rendered: dict[str, Manifests]
) -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for name in pods(rendered[variant]):
        image = container_of(rendered[variant], name)["image"]
        build = "cuda" if (variant, name) == ("overlays/gpu", "worker") else "cpu"
        assert image == ("postgres:17.2-bookworm" if name == "postgres" else f"effnet:{version[1]}-{build}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_containers_refer_to_exists_and_no_password_is_in_the_manifests(
    variant: str, rendered: dict[str, Manifests], secrets: dict[str, dict[str, str]]
) -> None:
    maps = {name for kind, name in rendered[variant] if kind == "ConfigMap"}
    used = set()
    for name in pods(rendered[variant]):
        container = container_of(rendered[variant], name)
        for source in container.get("envFrom", []):
            assert source.get("configMapRef", {}).get("name") in (None, *maps)
            used |= {source["secretRef"]["name"]} if "secretRef" in source else set()
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                assert reference["key"] in secrets[reference["name"]]
            assert not re.search("PASSWORD|SECRET|AUTH_STRING", variable["name"]) or "valueFrom" in variable
    assert used == set(secrets)
    assert not any(kind == "Secret" for kind, _ in rendered[variant])


def test_clients_and_servers_get_the_same_new_passwords(secrets: dict[str, dict[str, str]]) -> None:
    clients = secrets["effnet-clients"]
    assert clients["PREFECT_API_AUTH_STRING"] == secrets["effnet-prefect"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert clients["MLFLOW_TRACKING_PASSWORD"] == secrets["effnet-mlflow"]["MLFLOW_AUTH_ADMIN_PASSWORD"]
    assert len(clients["MLFLOW_TRACKING_PASSWORD"]) == 48
    assert clients["PREFECT_API_AUTH_STRING"] != f"effnet:{clients['MLFLOW_TRACKING_PASSWORD']}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_settings_of_flows_and_workers_compose(variant: str, rendered: dict[str, Manifests]) -> None:
    engines = {}
    for name in {"deploy", "flows", "worker"} & set(pods(rendered[variant])):
        container = container_of(rendered[variant], name)
        words = [word for word in [*container["command"], *container.get("args", [])] if "=" in word]
        engines[name] = compose.compose(["profile=paper", *words]).launch.engine
    assert engines["flows"] == ("kubernetes" if variant == "overlays/jobs" else "workpool")


def test_gpus_are_requested_of_the_nodes_that_have_them(rendered: dict[str, Manifests]) -> None:
    manifests = rendered["overlays/gpu"]
    worker = container_of(manifests, "worker")
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert "launch.nproc_per_node=8" in worker["args"]  # so that it accepts one job of profile=paper at a time
    tolerations = pods(manifests)["worker"]["spec"]["tolerations"]
    assert tolerations == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_the_flows_may_do_what_the_engine_calls_and_nothing_else(rendered: dict[str, Manifests]) -> None:
    called = set(re.findall(r'_call\(\s*"(\w+?)_namespaced_(\w+)"', (ROOT / "infra/launch/kubernetes.py").read_text()))
    verbs = {"read": "get"}
    needed = {
        ("get", "pods/log") if kind == "pod_log" else (verbs.get(verb, verb), f"{kind}s") for verb, kind in called
    }
    [role] = [document for (kind, _), document in rendered["overlays/jobs"].items() if kind == "Role"]
    allowed = {(verb, name) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}
    assert allowed == needed | {("update", "jobs/finalizers")}  # the Job is the owner of its Service
    assert pods(rendered["overlays/jobs"])["flows"]["spec"]["serviceAccountName"] == "flows"
