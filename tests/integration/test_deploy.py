"""``effnet deploy`` on a real Prefect server that holds objects of other people."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import owner_calls
import pytest
import yaml
from checkout import ROOT

from infra.services import deployments
from infra.services.stack import Addresses

pytestmark = pytest.mark.services
NAMES = [entry["name"] for entry in deployments.read_entries(deployments.FILE)]


@pytest.fixture(scope="module")
def file(services: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Our definitions with other names: those of the session's server are used by other tests."""
    entries = [{**entry, "name": f"{entry['name']}-try"} for entry in deployments.read_entries(deployments.FILE)]
    path = tmp_path_factory.mktemp("deploy") / "prefect.yaml"
    path.write_text(yaml.safe_dump({"deployments": entries}))
    yield path
    for entry in present("-try").values():
        owner_calls.prefect("DELETE", f"/deployments/{entry['id']}")


def effnet(services: Addresses, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "flows", "deploy", f"services.prefect={services.prefect}", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def deploy(services: Addresses, *words: str) -> list[str]:
    done = effnet(services, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def present(suffix: str) -> dict[str, dict[str, Any]]:
    deployments = owner_calls.prefect("POST", "/deployments/filter", {})[1]
    return {entry["name"]: entry for entry in deployments if entry["name"].endswith(suffix)}


def test_a_server_is_configured_once_and_shows_what_changes(services: Addresses, file: Path) -> None:
    words = ("--file", str(file))
    flow = owner_calls.prefect("POST", "/flows/", {"name": "train"})[1]["id"]
    theirs = {"name": "of-others", "flow_id": flow, "entrypoint": "their.py:train", "tags": ["theirs"]}
    owner_calls.prefect("POST", "/deployments/", theirs)
    before = present("of-others")

    shown = deploy(services, "--dry-run", *words)
    assert shown == [*(f"deployment {name}/{name}-try: created" for name in NAMES), "nothing was changed"]
    assert present("-try") == {}
    assert deploy(services, *words) == shown[:-1]
    assert deploy(services, *words) == [f"{services.prefect} is configured; nothing to do"]
    assert present("of-others") == before

    job, nightly = present("-try")["job-try"], present("-try")["nightly-try"]
    assert (job["work_pool_name"], job["work_queue_name"]) == ("effnet", "jobs")
    assert "key" in job["parameter_openapi_schema"]["required"]
    assert nightly["global_concurrency_limit"]["limit"] == 1
    schedule = nightly["schedules"][0]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 3 * * *", "UTC")

    path = f"/deployments/{nightly['id']}"
    owner_calls.prefect("PATCH", f"{path}/schedules/{schedule['id']}", {"active": False})
    owner_calls.prefect("PATCH", path, {"description": "changed by hand"})
    assert deploy(services, *words) == ["deployment nightly/nightly-try: description changed"]
    assert [item["active"] for item in present("-try")["nightly-try"]["schedules"]] == [False]  # a pause is kept


@pytest.mark.slow
def test_the_limit_is_changed_only_where_it_is_given(services: Addresses, file: Path) -> None:
    words = ("--file", str(file))
    deploy(services, "launch.jobs_at_once=1", *words)  # whatever the tests before it have set
    assert deploy(services, "launch.jobs_at_once=5", *words) == ["concurrency limit accelerator: 1 -> 5"]
    assert deploy(services, *words) == [f"{services.prefect} is configured; nothing to do"]
    assert deploy(services, "launch.jobs_at_once=1", *words) == ["concurrency limit accelerator: 5 -> 1"]


def test_a_deployment_of_others_with_our_name_is_not_replaced(services: Addresses, tmp_path: Path) -> None:
    flow = owner_calls.prefect("POST", "/flows/", {"name": "train"})[1]["id"]
    theirs = {"name": "taken", "flow_id": flow, "entrypoint": "their.py:train"}
    made = owner_calls.prefect("POST", "/deployments/", theirs)[1]
    entries = [entry for entry in deployments.read_entries(deployments.FILE) if entry["name"] == "train"]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [{**entries[0], "name": "taken"}]}))
    done = effnet(services, "--file", str(tmp_path / "prefect.yaml"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "has a deployment train/taken that runs their.py:train: rename or delete it"
    )
    assert owner_calls.prefect("GET", f"/deployments/{made['id']}")[1]["entrypoint"] == "their.py:train"


PODS = (
    "launch.engine=kubernetes",
    "launch.gpus_per_node=2",
    "launch.nproc_per_node=2",
    "launch.kubernetes.secrets=[effnet-store]",
    "services.s3=https://s3.example",
    "services.mlflow=https://mlflow.example",
)


@pytest.mark.slow
def test_jobs_get_a_work_pool_of_pods_that_is_theirs_alone(services: Addresses, file: Path) -> None:
    words = ("--file", str(file), "--pods", "try-pods", *PODS)
    try:
        deploy(services, "--file", str(file))
        assert deploy(services, *words, "launch.kubernetes.image=effnet:1") == [
            "work pool try-pods: created",
            "deployment job/job-try: work_pool_name changed",
        ]
        path = "/work_pools/try-pods"
        pool = owner_calls.prefect("GET", path)[1]
        assert pool["type"] == "kubernetes"
        job, train = present("-try")["job-try"], present("-try")["train-try"]
        assert (job["work_pool_name"], train["work_pool_name"]) == ("try-pods", "effnet")
        manifest = pool["base_job_template"]["job_configuration"]["job_manifest"]
        [container] = manifest["spec"]["template"]["spec"]["containers"]
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        assert variables["EFFNET_GPUS"] == "0,1"
        assert "services.s3=https://s3.example" in variables["EFFNET_SETTINGS"]
        assert "run_dir=/scratch" in variables["EFFNET_SETTINGS"]
        assert deploy(services, *words, "launch.kubernetes.image=effnet:1") == [
            f"{services.prefect} is configured; nothing to do"
        ]
        [line] = deploy(services, *words, "launch.kubernetes.image=effnet:2")
        assert line.startswith("work pool try-pods: job template replaced")
        manifest["metadata"]["labels"] = {"app.kubernetes.io/name": "of-others"}
        assert owner_calls.prefect("PATCH", path, {"base_job_template": pool["base_job_template"]})[0] == 204
        done = effnet(services, *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "has a work pool try-pods with another job template: take a new name" in done.stderr
    finally:
        owner_calls.prefect("DELETE", "/work_pools/try-pods")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pods", "x"), "--pods x needs launch.engine=kubernetes, whose settings describe the pods"),
        (("--pods", "effnet", *PODS), "--pods effnet must differ from --pool"),
        (("--pods", "x", *PODS[:-1]), "--pods x: pods do not reach embedded services; set services.mlflow=URL"),
    ],
)
def test_pods_that_could_not_work_are_refused(services: Addresses, words: tuple[str, ...], message: str) -> None:
    done = effnet(services, *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_wrong_credentials_and_a_server_that_is_not_there_are_one_line(
    services: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "effnet:wrong")
    done = effnet(services)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "refuses the credentials (401); set PREFECT_API_AUTH_STRING" in done.stderr
    done = effnet(replace(services, prefect="http://127.0.0.1:9/api"))
    assert (done.returncode, done.stderr) == (
        2,
        "error: services.prefect: http://127.0.0.1:9/api does not answer; it ends with /api\n",
    )
