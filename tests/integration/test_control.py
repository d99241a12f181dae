"""The verbs about what runs, on the real services: status, cancel, rerun of a command in a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

from infra.services import stack

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
EXPERIMENT = "experiment=controlled"
SMALL = ["data.limit=400", "recipe.epochs=200", "recipe.seed=77", "launch.nproc_per_node=1"]


def effnet(run_dir: Path, *words: str, **options: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "flows", *words, f"run_dir={run_dir}", EXPERIMENT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, **{**pipes, **options})


def output(run_dir: Path, *words: str) -> str:
    process = effnet(run_dir, *words)
    shown, _ = process.communicate(timeout=240)
    assert process.returncode == 0, shown
    return shown


@pytest.fixture(scope="module")
def training(services: stack.Addresses, services_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """`effnet train` in a terminal, once `effnet status` shows the time that its job has left."""
    assert services
    process = effnet(services_dir, "train", *SMALL)
    try:
        for _ in range(60):
            jobs = json.loads(output(services_dir, "status", "--json"))["jobs"]
            if any(" left" in job["line"] for job in jobs) or process.poll() is not None:
                break
            time.sleep(1)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)


LABELLED = """
import asyncio, json, os
from prefect import flow, task
from prefect.context import TaskRunContext
from flows.cli import session
from infra.services import flow_runs
from infra.services.prefect_api import from_environment, request

api = from_environment(os.environ)

@task
async def look():
    run = TaskRunContext.get().task_run
    [here] = [one for one in flow_runs.active(api) if one.id == str(run.flow_run_id)]
    return here, run.tags

@flow(name="labelled")
async def labelled():
    return await look()

here, task_tags = asyncio.run(session._run_labelled(labelled))
tags = request(api, "GET", f"/flow_runs/{here.id}")[1]["tags"]
print(json.dumps([flow_runs._process(here) == os.getpid(), tags, sorted(task_tags)]))
"""


def test_a_command_is_found_by_labels_of_its_flow_run_which_has_one_tag(services: stack.Addresses) -> None:
    assert services
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", LABELLED], env=environment, capture_output=True, text=True, timeout=240
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == [True, ["effnet"], ["effnet"]]


@pytest.mark.slow
def test_a_flow_is_shown_with_the_time_left_cancelled_and_resumed_by_rerun(
    training: subprocess.Popen[str], services_dir: Path
) -> None:
    assert training.poll() is None, training.communicate()[0]
    shown = output(services_dir, "status")
    [flow] = [line for line in shown.splitlines() if line.startswith("flow     train b0: running for")]
    assert re.search(r", about .* left$", flow), flow
    assert "job      train b0 mnist5k" in shown
    assert " left" in shown

    ended = "train b0 has ended; the same command resumes from what is saved\n"
    assert output(services_dir, "cancel", "train b0") == ended
    log, _ = training.communicate(timeout=60)
    assert training.returncode == 8, log
    assert "stopped by SIGTERM: the state of train b0 mnist5k" in log
    assert "nothing runs" in output(services_dir, "status")

    again = effnet(services_dir, "rerun", log.partition("the state of ")[2].partition(" is saved")[0])
    lines: list[str] = []
    assert again.stdout is not None
    for line in again.stdout:
        lines.append(line)
        if "resumed at step" in line:
            break
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=120)
    assert any(line.startswith("effnet train ") and "recipe.epochs=200" in line for line in lines), lines
    assert "no sample lost" in lines[-1], lines


def test_a_flow_that_does_not_run_cannot_be_cancelled(services: stack.Addresses, services_dir: Path) -> None:
    assert services
    process = effnet(services_dir, "cancel", "no such flow")
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert shown.startswith("error: no flow 'no such flow' runs; ")
    assert "  " not in shown, "without a similar name nothing stands in its place"
