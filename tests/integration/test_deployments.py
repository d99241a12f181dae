"""Deployments on a real server and worker, started by the commands of docs/deployment.md as they are written.

Every block of commands (```sh) of the README and of docs/ and examples/ runs here under ``bash -e`` in an empty
folder, as in a fresh shell. A stand-in for ``effnet`` adds a run folder and small sizes; ``make`` only says what it
would do, because CI runs `make test` itself.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError

from infra import store
from infra.services import processes, stack
from infra.services.stack import Addresses

pytestmark = [pytest.mark.services, pytest.mark.torchrun]

DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL), 1)
]
SMALL = ["data.limit=600", "launch.nproc_per_node=1", "storage=s3://effnet/deployments"]
ONE_EPOCH = "recipe.epochs=1"
PATIENCE_S = 240  # a run takes 8 to 20 s on two quiet cores
FOREIGN = ("PREFECT_", "MLFLOW_", "AWS_", "EFFNET_", "TEST_")


class Shell:
    """A fresh shell's environment and folder, with stand-ins for the programs that the documents name."""

    def __init__(self, folder: Path, run_dir: Path) -> None:
        self.folder, bin_folder = folder, folder / ".venv" / "bin"
        bin_folder.mkdir(parents=True)
        python, words = shlex.quote(sys.executable), shlex.join([*SMALL, f"run_dir={run_dir}"])
        programs = {
            # A setting may be given once: a block that sets the epochs keeps them.
            "effnet": f'[[ "$*" == *recipe.epochs=* ]] || set -- "$@" {ONE_EPOCH}\nexec {python} -m flows "$@" {words}',
            "prefect": f'exec {python} -m prefect "$@"',
            "python": f'exec {python} "$@"',
            "make": f'exec /usr/bin/env -u MAKEFLAGS make -n -C {shlex.quote(str(ROOT))} "$@"',
        }
        path = os.environ["PATH"]
        for name, line in programs.items():
            outside = f"PATH={shlex.quote(path)}\n" if name == "make" else ""  # else it would call itself
            (bin_folder / name).write_text(f"#!/bin/bash\n{outside}{line}\n")
            (bin_folder / name).chmod(0o755)
        (bin_folder / "activate").write_text("")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        pythonpath = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.env = {**kept, "PATH": f"{bin_folder}{os.pathsep}{path}", "PYTHONPATH": pythonpath, "HOME": str(folder)}

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", commands], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=480
        )


@pytest.fixture(scope="module")
def shell(services: Addresses, services_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell beside the session's services, whose worker is started anew by `effnet up`."""
    stack.down(services_dir, only=["worker"])
    yield Shell(tmp_path_factory.mktemp("shell"), services_dir)
    stack.down(services_dir, only=["worker"])


@pytest.fixture(scope="module")
def worker(shell: Shell) -> None:
    """The worker, with small sizes as its settings."""
    done = shell.run("effnet up")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_commands_runs_as_it_is_written(block: str, shell: Shell, services_dir: Path) -> None:
    done = shell.run(block)
    log = processes.log_tail(services_dir / "services", "worker", 60)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    assert "Traceback" not in done.stderr


def ask(services: Addresses, path: Any, body: dict[str, Any]) -> Any:
    """Asked by Prefect's own client, which asks again when the server says 503."""
    with SyncPrefectClient(services.prefect, auth_string=os.environ.get("PREFECT_API_AUTH_STRING")) as client:
        return client.request("POST", path, json=body).json()


def start(services: Addresses, name: str, *overrides: str, **fields: Any) -> str:
    """Starts a deployment as the UI does; returns the id of its flow run."""
    [found] = ask(services, "/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    body = {"parameters": {"overrides": list(overrides), **fields}}
    return str(ask(services, f"/deployments/{found['id']}/create_flow_run", body)["id"])


def wait(services: Addresses, services_dir: Path, run: str) -> dict[str, Any]:
    """The flow run once it has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        [found] = ask(services, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return dict(found)
        if time.monotonic() > deadline:
            log = processes.log_tail(services_dir / "services", "worker", 60)
            pytest.fail(f"{found['name']} is still {found['state']}\n{log}")
        time.sleep(0.5)


@pytest.fixture(scope="module")
def trained(worker: None, services: Addresses, services_dir: Path) -> dict[str, Any]:
    """The run that the command of docs/deployment.md started, or one like it where this test runs alone."""
    query = {"deployment_id": {"is_null_": False}, "name": {"any_": ["train b3"]}}
    done = [
        run["id"]
        for run in ask(services, "/flow_runs/filter", {"flow_runs": query})
        if run["parameters"].get("model") == "b3"
    ]
    run = wait(services, services_dir, done[0] if done else start(services, "train", model="b3"))
    assert run["state_type"] == "COMPLETED", run["state"]
    return run


def test_a_deployment_s_run_logs_its_progress_to_prefect(trained: dict[str, Any], services: Addresses) -> None:
    deadline = time.monotonic() + 60  # Prefect sends logs in batches
    lines: list[str] = []
    while not any("images/s" in line for line in lines):
        assert time.monotonic() < deadline, lines
        time.sleep(0.5)
        query = {"logs": {"flow_run_id": {"any_": [trained["id"]]}}, "limit": 200}
        rows = ask(services, "/logs/filter", query)
        lines = [row["message"] for row in rows if row["name"] == "effnet"]
    assert any(re.search(r"epoch 1/1, step 6/6, loss .*, minival .* left", line) for line in lines), lines
    assert "prefect.task_runs" not in {row["name"] for row in rows}, "a line for the end of every task hides these"


def test_a_deployment_s_run_shows_the_progress_of_its_job_and_links_to_mlflow(
    trained: dict[str, Any], services: Addresses
) -> None:
    shown = ask(services, "/artifacts/filter", {"flow_runs": {"id": {"any_": [trained["id"]]}}})
    [progress] = [artifact for artifact in shown if artifact["type"] == "progress"]
    assert progress["data"] == 100
    assert re.match(
        r"100 %, 00:00 left\n\ntrain b3 mnist5k: epoch 1/1, step 6/6, loss .* left\n\n\[charts in MLflow\]",
        progress["description"],
    )
    [link] = [artifact["data"] for artifact in shown if artifact["key"] == "mlflow-run"]
    assert link.startswith(f"[MLflow run]({services.mlflow}/#/experiments/")


def test_what_effnet_up_was_given_is_a_deployment_s_default(trained: dict[str, Any]) -> None:
    uris = store.list_uris("s3://effnet/deployments/jobs")
    [asked] = [store.read(uri).decode() for uri in uris if "/train-b3-" in uri and uri.endswith("/config.yaml")]
    assert "  epochs: 1\n" in asked


def test_a_deployment_s_run_is_named_after_what_it_does(trained: dict[str, Any]) -> None:
    assert trained["name"] == "train b3"


MISTAKES = {
    "services": (
        ["services.mlflow=http://127.0.0.1:9"],
        r"services\.mlflow=http://127\.0\.0\.1:9: .* started with, services\.mlflow=embedded; .*`effnet up",
    ),
    "run folder": (["run_dir=elsewhere"], r"run_dir=.*/elsewhere: .* was started with, run_dir=.*; omit"),
    "key": (["recipe.epoch=2"], r"no setting named 'recipe\.epoch'; did you mean 'recipe\.epochs'"),
}


@pytest.fixture(scope="module")
def ended(worker: None, services: Addresses, services_dir: Path) -> dict[str, dict[str, Any]]:
    """What became of the runs with mistakes and of a good one, all of which were started together."""
    good = [f"services.mlflow={services.mlflow}", f"run_dir={services_dir}", "data=digits", "data.limit=200"]
    runs = {name: start(services, "train", *overrides) for name, (overrides, _) in MISTAKES.items()}
    runs["no mistake"] = start(services, "shard", *good)
    return {name: wait(services, services_dir, run) for name, run in runs.items()}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_deployment_s_overrides_fails_the_run_in_one_line_before_any_work(
    mistake: str, ended: dict[str, dict[str, Any]], services: Addresses
) -> None:
    run = ended[mistake]
    message = run["state"]["message"]
    assert run["state_type"] == "FAILED", message
    assert re.search(MISTAKES[mistake][1], message), message
    assert "\n" not in message
    rows = ask(services, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200})
    assert not [row["message"] for row in rows if "Traceback" in row["message"]]
    assert ask(services, "/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}}) == []


def test_the_addresses_and_the_run_folder_of_the_worker_are_accepted(ended: dict[str, dict[str, Any]]) -> None:
    run = ended["no mistake"]
    assert (run["state_type"], run["name"]) == ("COMPLETED", "shard digits"), run["state"]


@pytest.mark.parametrize(
    ("fields", "message"), [({"model": "b9"}, "'b9' is not one of"), ({"epochs": 0}, "0 is less than the minimum of 1")]
)
def test_a_field_of_the_form_that_has_no_such_value_is_refused_before_a_run_exists(
    fields: dict[str, Any], message: str, worker: None, services: Addresses
) -> None:
    with pytest.raises(PrefectHTTPStatusError, match=message):
        start(services, "train", **fields)


def test_env_leads_prefect_mlflow_and_boto3_of_a_shell_to_the_services(worker: None, shell: Shell) -> None:
    code = (
        "import boto3, mlflow; mlflow.search_experiments();"
        "print([b['Name'] for b in boto3.client('s3').list_buckets()['Buckets']])"
    )
    done = shell.run(f'eval "$(effnet env)"; prefect work-pool inspect effnet; python -c {shlex.quote(code)}')
    assert done.returncode == 0, done.stderr
    assert "name='effnet'" in done.stdout
    assert done.stdout.splitlines()[-1] == "['effnet']"


def test_up_says_that_a_running_worker_keeps_its_settings(worker: None, shell: Shell) -> None:
    assert "keeps its settings" not in shell.run("effnet up").stdout
    said = shell.run("effnet up model=b1").stdout
    assert re.search(r"the worker keeps its settings, .*\bdata\.limit=600\b.*effnet down", said)
