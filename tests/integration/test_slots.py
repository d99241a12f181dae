"""The slots of `accelerator`: who waits for what, and what is left of them when holders and servers are killed."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import owner_calls
import pytest

from conf.schema import Services
from infra.services import leases, ports, processes, proctable
from infra.services import stack as embedded

LIMIT = "/v2/concurrency_limits/accelerator"
PATIENCE_S = 240.0
# A task that holds a slot until a line comes; in a process of its own, so that it can be killed.
HOLDER = """
import asyncio, logging, sys
from prefect import flow, task
from tasks import slots
log = logging.getLogger("effnet")  # as the command does, because Prefect sets up the root logger
log.setLevel(logging.INFO)
log.addHandler(logging.StreamHandler(sys.stdout))
slots.FIRST_LOG_S, slots._RENEW_S = 1.0, 1.0
name, times = sys.argv[1], int(sys.argv[2])
@task(task_run_name="train " + name)
async def hold():
    async with slots.slot(name, await slots.limit() if name == "latency" else 1):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
@flow
async def one():
    for _ in range(times): await hold()
asyncio.run(one())
"""


def test_a_holder_lives_as_long_as_its_process(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\nfrom infra.services import leases\n"
        f"with leases.alive(pathlib.Path({str(tmp_path)!r}), 'h'): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert leases.is_dead(tmp_path, "h")
    with leases.alive(tmp_path, "h"):
        assert not leases.is_dead(tmp_path, "h")
    assert not leases.is_dead(tmp_path, "h")  # it released its slot itself
    assert not leases.is_dead(tmp_path, "on-another-machine")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Prefect server of this file alone, which may be killed; ``os.environ`` leads to it."""
    before = dict(os.environ)
    run_dir = tmp_path_factory.mktemp("slots")
    # Far from the usual ports: while the server is down, another stack of this machine would take its place.
    chosen = {**ports.PREFERRED, "prefect": random.randrange(20_000, 30_000)}
    (run_dir / "services").mkdir()
    (run_dir / "services" / "state.json").write_text(json.dumps({"ports": chosen}))
    up(run_dir)
    yield run_dir
    embedded.down(run_dir)
    os.environ.clear()
    os.environ.update(before)


def up(run_dir: Path) -> list[str]:
    lines: list[str] = []
    embedded.up(run_dir, Services(), jobs_at_once=1, say=lines.append, only=("prefect",))
    return lines


def kill_server(run_dir: Path) -> None:
    handle = processes.running(run_dir / "services", "prefect")
    assert handle is not None
    for pid in [pid for pid, group in proctable.living().items() if group == handle.pid]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: processes.running(run_dir / "services", "prefect") is None)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def taken(path: str = LIMIT) -> int:
    return int(owner_calls.prefect("GET", path)[1]["active_slots"])


@contextmanager
def holder(name: str, times: int = 1) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", HOLDER, name, str(times)]
    env = {**os.environ, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], part: str) -> str:
    assert process.stdout is not None
    too_late = threading.Timer(PATIENCE_S, process.kill)
    too_late.start()
    try:
        for line in process.stdout:
            if part in line:
                return line
    finally:
        too_late.cancel()
    raise AssertionError(f"it ended without {part!r}")


def next_job(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    next_job(process)
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.services
@pytest.mark.slow
def test_a_waiting_job_says_for_whom_and_a_lost_lease_is_taken_again(stack: Path) -> None:
    with holder("first") as first:
        wait_for_line(first, "held")
        with holder("second") as second:
            said = wait_for_line(second, "waiting")
            assert said == "second: waiting for a slot of `accelerator`, held by train first\n"
            end(first)
            wait_for_line(second, "held")
            lease = leases.read(stack / "services" / "prefect")[0]
            owner_calls.prefect("POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": lease.id})
            wait_until(lambda: taken() == 1 and leases.read(stack / "services" / "prefect")[0] != lease)
            end(second)
    assert taken() == 0


@pytest.mark.services
@pytest.mark.slow
def test_a_command_with_many_jobs_lets_another_one_in_between(stack: Path) -> None:
    with holder("many", times=2) as many:
        wait_for_line(many, "held")
        with holder("single") as single:
            wait_for_line(single, "waiting")
            next_job(many)
            wait_for_line(single, "held")
            wait_for_line(many, "waiting")
            end(single)
        wait_for_line(many, "held")
        end(many)


@pytest.mark.services
@pytest.mark.slow
def test_a_measurement_has_all_slots(stack: Path) -> None:
    assert owner_calls.prefect("PATCH", LIMIT, {"limit": 2})[0] == 204
    with holder("train") as train:
        wait_for_line(train, "held")
        with holder("latency") as latency:
            said = wait_for_line(latency, "waiting")
            assert said == "latency: waiting for 2 slots of `accelerator`, held by train train\n"
            end(train)
            wait_for_line(latency, "held")
            assert taken() == 2
            end(latency)
    assert (owner_calls.prefect("PATCH", LIMIT, {"limit": 1})[0], taken()) == (204, 0)


@pytest.mark.services
@pytest.mark.slow
def test_the_count_is_right_when_the_server_or_everything_was_killed(stack: Path) -> None:
    with holder("outlives") as process:
        wait_for_line(process, "held")
        kill_server(stack)
        up(stack)
        assert taken() == 1  # it still runs
        end(process)
        assert taken() == 0  # and its end was told to the new server
    with holder("dies") as process:
        wait_for_line(process, "held")
        process.kill()
        process.wait()
        kill_server(stack)
        up(stack)
        assert taken() == 0
        assert list((stack / "services" / "prefect" / "holders").iterdir()) == []


@pytest.mark.slow
@pytest.mark.services
def test_slots_that_nobody_holds_are_freed_for_deployments_too(stack: Path) -> None:
    flow = owner_calls.prefect("POST", "/flows/", {"name": "nightly"})[1]["id"]
    body = {"name": "nightly", "flow_id": flow, "concurrency_limit": 1}
    made = owner_calls.prefect("POST", "/deployments/", body)[1]
    own = f"/v2/concurrency_limits/{made['global_concurrency_limit']['id']}"
    for path in (own, LIMIT):  # as a server leaves it that had its leases in memory
        assert owner_calls.prefect("PATCH", path, {"active_slots": 1})[0] == 204
    assert "`accelerator`: 1 slots counted as taken, 0 in use; counted right" in up(stack)
    assert (taken(own), taken()) == (0, 0)


def test_a_mark_of_a_waiting_command_is_locked_as_soon_as_it_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def look_and_lock(stream: TextIO, operation: int) -> None:
        assert not (tmp_path / "holders" / "h").exists()  # others would remove it as that of a dead process
        lock(stream, operation)

    with monkeypatch.context() as patched:
        patched.setattr(leases.fcntl, "flock", look_and_lock)
        command = leases.alive(tmp_path, "h")
        command.__enter__()
    assert not leases.is_dead(tmp_path, "h")
    command.__exit__(None, None, None)
    assert list((tmp_path / "holders").iterdir()) == []
