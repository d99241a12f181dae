"""Nights that end before their end: stopped by a signal, or killed on a worker. Each leaves a record and an alert."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from night_rig import add_images, alert_sink, night_settings, register_base, register_deployments
from page_reader import Page

from conf.overrides import replace
from conf.schema import Services
from infra import store
from infra.services import processes, proctable, stack
from infra.services.prefect_api import from_environment, request
from infra.services.stack import Addresses

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE = "s3://effnet/ended"
PATIENCE_S = 300.0


@pytest.fixture
def sink() -> Iterator[tuple[str, list[str]]]:
    with alert_sink() as sink:
        yield sink


@pytest.fixture
def base(services: Addresses, tmp_path: Path) -> str:
    return register_base("ended-base", STORAGE, tmp_path / "base")


def wait_until(is_so: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := is_so()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return value


def record(line: str) -> dict[str, Any]:
    uris = store.list_uris(f"{STORAGE}/nights/{line}")
    return dict(store.read_json(uris[-1])) if uris else {}


def is_training() -> bool:
    return any("/finetune-" in uri and uri.endswith("/status.json") for uri in store.list_uris(f"{STORAGE}/jobs"))


@pytest.mark.slow
def test_a_night_that_is_stopped_by_sigterm_is_recorded_reported_and_resumed_by_the_same_command(
    base: str, services_dir: Path, tmp_path: Path, sink: tuple[str, list[str]]
) -> None:
    url, texts = sink
    add_images(tmp_path / "images", 0, 240)
    settings = night_settings(base, tmp_path / "images", STORAGE, "stopped")
    settings = replace(settings, [f"nightly.alerts.webhook={url}", "transfer.recipe.epochs=40"])
    command = [sys.executable, "-m", "flows", "nightly", *settings, f"run_dir={services_dir}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_until(is_training, "the training has not started")
        assert record("ended-base-stopped")["outcome"] == "running"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode in (8, 130), output
    ended = record("ended-base-stopped")
    assert (ended["outcome"], bool(ended["finished"])) == ("cancelled", True)
    (text,) = texts
    assert text.startswith("effnet nightly ended-base on stopped (")
    assert "): cancelled: " in text
    page = Page((services_dir / "latest" / "night.html").read_text())
    assert "Cancelled: " in page.text()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert record("ended-base-stopped")["outcome"] == "promoted"
    assert len(texts) == 1


def find_flow(run: str) -> int | None:
    """The process of a flow run on the worker, not that of its jobs."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            variables = proctable.environment(int(folder.name))
        except OSError:
            continue
        if b"prefect" in command and b"engine" in command and f"PREFECT__FLOW_RUN_ID={run}".encode() in variables:
            return int(folder.name)
    return None


@pytest.mark.slow
def test_a_night_that_is_killed_on_a_worker_is_reported_by_the_worker(
    base: str, services_dir: Path, tmp_path: Path, sink: tuple[str, list[str]]
) -> None:
    url, texts = sink
    stack.down(services_dir, only=["worker"])
    register_deployments(services_dir)
    add_images(tmp_path / "images", 0, 240)
    settings = night_settings(base, tmp_path / "images", STORAGE, "killed")
    settings = replace(settings, [f"nightly.alerts.webhook={url}", "transfer.recipe.epochs=40"])
    api = from_environment(os.environ)
    stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=("worker",))
    try:
        _, deployment = request(api, "GET", "/deployments/name/nightly/nightly")
        body = {"state": {"type": "SCHEDULED"}, "parameters": {"overrides": settings}}
        _, created = request(api, "POST", f"/deployments/{deployment['id']}/create_flow_run", body)
        wait_until(lambda: record("ended-base-killed").get("outcome") == "running", "the night has not started")
        os.kill(wait_until(lambda: find_flow(created["id"]), "no process of the flow"), signal.SIGKILL)
        wait_until(lambda: texts, processes.log_tail(services_dir / "services", "worker", 60))
    finally:
        stack.down(services_dir, only=["worker"])
    assert "): crashed: " in texts[0]
    assert record("ended-base-killed")["outcome"] == "crashed"
    assert len(texts) == 1
