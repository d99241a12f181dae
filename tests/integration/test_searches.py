"""Searches on real services: killed in the middle, broken by a trial that really diverges, and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from infra import store
from infra.services.stack import Addresses
from infra.tracking.client import library

pytestmark = [pytest.mark.services, pytest.mark.torchrun]

SMALL = [
    *("data=digits", "data.limit=400", "search.recipe.epochs=6", "architecture.recipe.epochs=1"),
    "launch.jobs_at_once=1",  # a flow is killed between two trials
]
GRID = [
    "search.alpha=[1.2,1.4]",
    "search.beta=[1.0,1.1,1.2]",
    "search.gamma=[1.0,1.15,1.3]",
    "search.counted_tolerance=0.65",
]
NAN = "batch@*:1=nan!"  # every image from the first step on: the job ends with DivergedError


def command(run_dir: Path, name: str, *words: str) -> list[str]:
    where = [f"run_dir={run_dir}", f"storage=s3://effnet/{name}", f"experiment={name}"]
    return [sys.executable, "-m", "flows", *words, *SMALL, *where]


def kill_after_the_first_trial(argv: list[str], storage: str) -> None:
    """SIGKILL to the flow's process while its second trial runs."""
    running = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while (len(jobs(storage)), len(results(storage))) < (2, 1):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.kill()
    running.wait()  # its slot is freed by the next command


def jobs(storage: str) -> list[str]:
    return [uri for uri in store.list_uris(f"{storage}/jobs") if uri.endswith("/config.yaml")]


def results(storage: str) -> dict[str, str]:
    """The time at which each job's result was made, by address."""
    uris = [uri for uri in store.list_uris(f"{storage}/jobs") if uri.endswith("/result.json")]
    return {uri: store.read(uri).decode() for uri in uris}


def artifact(experiment: str, name: str) -> Any:
    """The JSON that a search left in MLflow; its other trials have no such file."""
    client = library().MlflowClient()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id], "tags.role != 'trial'")
    assert len(runs) == 1
    return json.loads(library().artifacts.load_text(f"runs:/{runs[0].info.run_id}/{name}"))


@pytest.mark.slow
def test_a_grid_search_killed_in_the_middle_goes_on_and_outlives_a_trial_that_diverges(
    services: Addresses, services_dir: Path
) -> None:
    storage, argv = "s3://effnet/grid", command(services_dir, "grid", "search", *GRID)
    kill_after_the_first_trial(argv, storage)
    before = results(storage)
    assert len(before) == 1
    again = subprocess.run(argv, capture_output=True, text=True, timeout=240, env={**os.environ, "FAULT": NAN})
    assert again.returncode == 0, again.stderr
    assert "trials     1 trained, 1 refused, 1 failed; 1 from earlier runs" in again.stdout
    assert "refused    1.2 1.1 1.15: counts 1.28 times the baseline's multiply-adds after rounding" in again.stdout
    assert results(storage) == before
    found = artifact("grid", "search.json")
    assert (found["found"], len(found["trials"]), len(found["failed"])) == (1, 1, 1)
    assert "is the only trial" in found["verdict"]
    assert [row["phi"] for row in found["family"]] == [1, 2, 3, 4, 5, 6, 7]
    assert artifact("grid", "refused.json") == found["refused"]
    assert len(found["refused"]) == 1

    seeded = subprocess.run([*argv, "search.seeds=2"], capture_output=True, text=True, timeout=400)
    assert seeded.returncode == 0, seeded.stderr
    assert "trials     2 trained, 1 refused, 0 failed; 1 from earlier runs" in seeded.stdout
    assert len(results(storage)) == 4  # two points with two seeds each
    assert "cost       at equal counted cost" in seeded.stdout
    assert "the same images were not compared" not in seeded.stdout


@pytest.mark.slow
def test_an_architecture_search_killed_in_the_middle_goes_on_to_the_wanted_number(
    services: Addresses, services_dir: Path
) -> None:
    storage = "s3://effnet/blocks"
    argv = command(services_dir, "blocks", "architecture", "architecture.trials=2")
    kill_after_the_first_trial(argv, storage)
    before = results(storage)
    again = subprocess.run(argv, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert "trials     2 trained, 0 refused, 0 failed; 1 from earlier runs" in again.stdout
    assert "its process is gone; requeued" in again.stderr
    after = results(storage)
    assert len(jobs(storage)) == len(after) == 2  # the trial that was broken off is the one that was finished
    assert before.items() <= after.items()
    part = store.read_json(f"{storage}/reports/laptop/architecture.json")
    assert [trial["state"] for trial in part["trials"]] == ["complete", "complete"]
    assert part["baseline"]["number"] == 0
    assert part["machine"]
    assert any(trial["pareto"] for trial in part["trials"])
    assert artifact("blocks", "architecture.json")["trials"] == part["trials"]
