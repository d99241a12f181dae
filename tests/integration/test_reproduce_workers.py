"""``effnet reproduce`` over two workers, which share only the three services, against the run of one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import owner_calls
import pytest
from worker_machines import ONE_JOB, Machine, set_up_pool

from infra import store
from infra.services.stack import Addresses
from infra.tracking.client import library

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.workpool, pytest.mark.slow]

SMALL = [
    "variants=[efficientnet_b0,efficientnet_b1]",
    "data.limit=300",
    "transfer.data.limit=200",
    "recipe.epochs=1",
    "search.recipe.epochs=1",
    "explain.recipe.epochs=1",
    "explain.models=[{}]",
    "transfer.recipe.epochs=1",
    "search.alpha=[1.2,1.4]",
    "search.beta=[1.1,1.2]",
    "search.gamma=[1.0,1.15]",
    "photographs.networks=[]",
]
JOBS = 2 + 2 + 2 + 1  # trials, variants, transfers, maps
TIMES = {"minutes", "images_per_s", "mlflow_run", "mlflow_url", "registered_version", "aliases", "registered_name"}


def reproduce(machine: Machine, services: Addresses, name: str, *words: str) -> dict[str, Any]:
    """The summary of a reproduction that is started on ``machine``, in a storage and an experiment of its own."""
    places = [f"services.{service}={getattr(services, service)}" for service in ("s3", "prefect", "mlflow")]
    places += [f"storage=s3://effnet/{name}", f"experiment={name}"]
    argv = [sys.executable, "-m", "flows", "reproduce", *SMALL, *places, *words]
    done = subprocess.run(argv, cwd=machine.folder, env=machine.env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads((machine.folder / "runs" / "latest" / "summary.json").read_text())
    return summary


def results(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """What the jobs of a reproduction came to, without times and names."""
    rows = [*summary["variants"], *summary["search"]["trials"], *summary["transfer"]]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def weights(name: str) -> dict[str, str]:
    """Digest of the selected weights of every training, by its key.

    A champion that another test has registered under the same name is evaluated besides.
    """
    uris = [uri for uri in store.list_uris(f"s3://effnet/{name}/jobs") if uri.endswith("/result.json")]
    trainings = {uri.split("/")[-2]: uri for uri in uris if not uri.split("/")[-2].startswith("evaluate-")}
    return {key: store.read_json(uri)["weights_sha256"] for key, uri in trainings.items()}


def without_digest(digests: dict[str, str]) -> list[tuple[str, str]]:
    """The same with the names of the jobs only: their keys depend on the storage."""
    return sorted((key.rpartition("-")[0], digest) for key, digest in digests.items())


def test_a_reproduction_over_two_workers_runs_on_both_and_comes_to_the_bits_of_one_machine(
    services: Addresses, services_dir: Path, tmp_path: Path
) -> None:
    set_up_pool(services, services_dir)
    flow, *workers = (Machine(tmp_path / name) for name in ("flow", "one", "two"))
    for worker in workers:
        worker.start("--name", worker.folder.name, *ONE_JOB)
    try:
        for worker in workers:
            worker.wait_until_it_takes_jobs()
        spread = reproduce(flow, services, "spread", "launch.engine=workpool")
    finally:
        for worker in workers:
            worker.close()
    alone = reproduce(flow, services, "alone")

    assert (spread["jobs"], spread["jobs_found"], spread["missing"]) == (JOBS, 0, [])
    assert results(spread) == results(alone)
    assert len(weights("alone")) == JOBS
    assert without_digest(weights("spread")) == without_digest(weights("alone"))

    client = library().MlflowClient()
    experiment = client.get_experiment_by_name("spread")
    ran_on: dict[str, set[str]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        if "worker" in run.data.tags:
            ran_on.setdefault(run.data.tags["role"], set()).add(run.data.tags["worker"])
    assert ran_on["trial"] == ran_on["train"] == {"one", "two"}
    assert spread["workers"] == ["one", "two"]
    page = store.read("s3://effnet/spread/reports/laptop/report.html").decode()
    assert "<dt>Jobs ran on</dt><dd>one, two</dd>" in page

    assert not list((flow.folder / "runs" / "jobs").glob("*spread*"))
    folders = [
        {path.name for path in (worker.folder / "runs" / "jobs").iterdir() if not path.name.startswith("evaluate-")}
        for worker in workers
    ]
    assert folders[0] | folders[1] == set(weights("spread"))
    assert not folders[0] & folders[1]
    query = {"flow_runs": {"tags": {"any_": ["effnet.job:" + key for key in weights("spread")]}}}
    runs = owner_calls.prefect("POST", "/flow_runs/filter", query)[1]
    assert sorted(run["state_type"] for run in runs) == ["COMPLETED"] * JOBS
    assert os.environ["HOME"] not in {worker.env["HOME"] for worker in workers}
