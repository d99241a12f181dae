"""``infra/services/stack.py`` with real SeaweedFS, Prefect and MLflow."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import owner_calls
import pytest
from checkout import ROOT

from conf.schema import Services
from infra import store
from infra.errors import ConfigError
from infra.services import deployments, ports, processes, proctable, stack
from infra.services.http import call

pytestmark = pytest.mark.services
EMBEDDED = Services()


def silent(_: str) -> None:
    pass


@pytest.fixture
def own_dir(tmp_path: Path) -> Iterator[Path]:
    """A run folder of this test alone, so an object store of its own; ``os.environ`` is restored."""
    before = dict(os.environ)
    yield tmp_path
    stack.down(tmp_path)
    os.environ.clear()
    os.environ.update(before)


def up_store(run_dir: Path, say: Any = silent) -> stack.StartedServices:
    return stack.up(run_dir, EMBEDDED, jobs_at_once=1, say=say, only=("s3",))


@contextmanager
def squatting(port: int) -> Iterator[int]:
    """Another program that listens on this port (0: on any)."""
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        yield squatter.getsockname()[1]


def ours(run_dir: Path) -> list[bytes]:
    """Command lines of all living processes that belong to this run folder."""
    marks = {f"EFFNET_SERVICE={name}@{run_dir.resolve()}/services".encode() for name in stack.NAMES}
    pids = [pid for pid in proctable.living() if marks & set(proctable.environment(pid))]
    return [b" ".join(proctable.command_line(pid)) for pid in pids]


def test_addresses_are_known_at_once_and_stay_the_same(tmp_path: Path) -> None:
    before = time.monotonic()
    first = stack.prepare(tmp_path, EMBEDDED)
    assert time.monotonic() - before < 5, "nothing is started"
    assert first.prefect.endswith("/api")
    assert stack.prepare(tmp_path, EMBEDDED) == first
    assert stack.status(tmp_path, EMBEDDED) == dict.fromkeys(stack.NAMES, "not running")


def test_secrets_are_for_this_user_only(tmp_path: Path) -> None:
    stack.prepare(tmp_path, EMBEDDED)
    assert (tmp_path / "services").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "services" / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_services_of_others_are_taken_as_they_are(tmp_path: Path) -> None:
    theirs = Services(s3="http://s3.example:9000", prefect="http://p.example/api", mlflow="http://m.example")
    wanted = stack.Addresses("http://s3.example:9000", "http://p.example/api", "http://m.example")
    assert stack.prepare(tmp_path, theirs) == wanted
    with mock.patch.dict(os.environ):  # it leads this process there, and the tests after this one want ours
        assert stack.up(tmp_path, theirs, jobs_at_once=1, say=silent, only=()).names == ()
    env = stack.environment(tmp_path, theirs)
    assert env["AWS_ENDPOINT_URL_S3"] == "http://s3.example:9000"
    assert {"AWS_ACCESS_KEY_ID", "PREFECT_HOME", "NO_PROXY"}.isdisjoint(env)
    assert "AWS_ENDPOINT_URL_S3" not in stack.environment(tmp_path, Services(s3="aws"))


def test_a_busy_port_is_replaced_and_another_stack_is_not_given_the_same_one(tmp_path: Path) -> None:
    first = stack.prepare(tmp_path / "a", EMBEDDED)
    second = stack.prepare(tmp_path / "b", EMBEDDED)  # nobody listens on the first one's ports yet
    assert {first.s3, first.prefect, first.mlflow}.isdisjoint({second.s3, second.prefect, second.mlflow})
    with squatting(int(first.prefect.split(":")[2].removesuffix("/api"))):
        moved = stack.prepare(tmp_path / "a", EMBEDDED)
    assert moved.prefect != first.prefect
    assert (moved.s3, moved.mlflow) == (first.s3, first.mlflow)


def test_a_moved_port_is_told(own_dir: Path, object_store: str) -> None:
    lines: list[str] = []
    up_store(own_dir, lines.append)  # the session's own store has the usual port, or somebody else has
    assert any(re.fullmatch(r"port 8333 is taken, object store uses \d+", line) for line in lines)


def greet_without_certificate(port: int) -> bytes:
    context = ssl._create_unverified_context()  # noqa: S323
    with socket.create_connection(("127.0.0.1", port), 5) as raw, context.wrap_socket(raw) as wrapped:
        return wrapped.recv(1)


def test_strangers_are_refused_at_every_port_of_the_object_store(services_dir: Path, object_store: str) -> None:
    store.write(f"{object_store}/private", b"secret")
    chosen = json.loads((services_dir / "services" / "state.json").read_text())["ports"]
    refused = {
        "s3": "/effnet/private",
        "weed_filer": "/buckets/effnet/private",
        "weed_master": "/dir/assign",
        "weed_volume": "/1,01",
        "weed_admin": "/api/users",
    }
    for name, path in refused.items():
        assert call("GET", f"http://127.0.0.1:{chosen[name]}{path}")[0] in (401, 403, 404), name
        with pytest.raises(ssl.SSLError, match="certificate required"):  # gRPC
            greet_without_certificate(chosen[name] + ports.GRPC_OFFSET)


def test_no_secret_stands_on_a_command_line(services_dir: Path, object_store: str) -> None:
    secrets = json.loads((services_dir / "services" / "credentials.json").read_text()).values()
    lines = ours(services_dir)
    assert lines
    assert not [line for line in lines for secret in secrets if secret.encode() in line]


def test_only_one_of_two_starters_at_the_same_moment_starts(own_dir: Path) -> None:
    stack.prepare(own_dir, EMBEDDED)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: up_store(own_dir).names, range(2)))
    assert sorted(done) == [(), ("s3",)]
    assert len(ours(own_dir)) == 1


def test_what_was_started_is_stopped_even_after_the_starter_was_killed(own_dir: Path) -> None:
    code = (
        "import os, pathlib, conf.schema, infra.services.stack as l\n"
        f"folder = pathlib.Path({str(own_dir)!r})\n"
        "l.up(folder, conf.schema.Services(), jobs_at_once=1, say=print, only=['s3'])\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert stack.status(own_dir, EMBEDDED)["s3"].startswith("running at http://127.0.0.1:")
    assert up_store(own_dir).names == ()
    assert stack.down(own_dir) == ["s3"]
    assert ours(own_dir) == []
    assert stack.down(own_dir) == []


def test_data_survive_a_restart_on_another_port(own_dir: Path) -> None:
    first = up_store(own_dir).addresses
    store.write("s3://effnet/kept", b"still here")
    stack.down(own_dir)
    with squatting(int(first.s3.split(":")[2])):
        second = up_store(own_dir).addresses
        assert second.s3 != first.s3
        assert store.read("s3://effnet/kept") == b"still here"


def test_a_number_that_another_program_got_is_left_alone(tmp_path: Path) -> None:
    stack.prepare(tmp_path, EMBEDDED)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        note = tmp_path / "services" / "s3.process.json"
        note.write_text(json.dumps({"pid": stranger.pid, "born": "another time"}))
        assert stack.down(tmp_path) == []
        assert stranger.poll() is None
        stranger.kill()


def test_a_service_that_dies_at_its_start_shows_the_end_of_its_log(
    own_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with squatting(0) as port:
        taken = dict.fromkeys(ports.PREFERRED, port)
        monkeypatch.setattr(ports, "choose", lambda *_, **__: taken)  # as if somebody came in between
        with pytest.raises(ConfigError, match=r"(?s)object store died at its start.*port"):
            up_store(own_dir)
    assert ours(own_dir) == []


def test_a_second_up_finds_everything_quickly(services: stack.Addresses, services_dir: Path) -> None:
    before = time.monotonic()
    again = stack.up(services_dir, EMBEDDED, jobs_at_once=1, say=silent, only=("s3", "prefect", "mlflow"))
    assert time.monotonic() - before < 10
    assert (again.names, again.addresses) == ((), services)


def test_mlflow_keeps_its_artifacts_in_the_object_store(services: stack.Addresses) -> None:
    path = "/api/2.0/mlflow-artifacts/artifacts/some/file.json"
    assert owner_calls.mlflow("PUT", path, {"a": 1})[0] == 200
    assert store.read_json("s3://effnet/mlflow/some/file.json") == {"a": 1}


def test_the_watch_over_lost_flow_runs_is_set_up_once(services: stack.Addresses, services_dir: Path) -> None:
    for _ in range(2):
        stack.up(services_dir, EMBEDDED, jobs_at_once=1, say=silent, only=("prefect",))
    found = owner_calls.prefect("POST", "/automations/filter", {})[1]
    watches = [each for each in found if each["actions"][0]["type"] == "change-flow-run-state"]
    assert [each["enabled"] for each in watches] == [True]
    assert os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(deployments.HEARTBEAT_S)
    assert watches[0]["trigger"]["within"] > deployments.HEARTBEAT_S


def test_the_limit_follows_the_configuration(services: stack.Addresses, services_dir: Path) -> None:
    for limit in (3, 1):
        stack.up(services_dir, EMBEDDED, jobs_at_once=limit, say=silent, only=("prefect",))
        found = owner_calls.prefect("GET", "/v2/concurrency_limits/accelerator")[1]
        assert found["limit"] == limit


FLOW = """
import asyncio, logging, os
from pathlib import Path
from prefect import flow

os.chdir(Path(__file__).parent)

@flow
async def train(overrides: list[str]):
    Path("ran.part").write_text(f"{overrides} {os.environ['AWS_ACCESS_KEY_ID']}")
    Path("ran.part").rename("ran")
    if overrides == ["talk"]:
        while not Path("go").exists():
            await asyncio.sleep(0.1)
        for _ in range(1000):
            print("more than a pipe's end takes" * 100)
        logging.getLogger("effnet").warning("still here")
        return
    try:
        await asyncio.sleep(300)
    finally:
        Path("cleaned").write_text("the trainer was told to save")
"""


@pytest.fixture
def scratch_home(services_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one flow, and of our prefect.yaml only what is about it; a new worker imports it from there."""
    stack.down(services_dir, only=["worker"])  # one of another test does not know the folder
    text = deployments.FILE.read_text()
    head, *each = re.split(r"(?m)^(?=  - name: )", text)
    chosen = [
        re.sub(r"flows\.\w+\.\w+", "scratch_flows.train", part)
        for part in each
        if re.match(r"  - name: (train|nightly)\n", part)
    ]
    (tmp_path / "prefect.yaml").write_text(head + "".join(chosen))
    (tmp_path / "scratch_flows.py").write_text(FLOW)
    monkeypatch.setattr(deployments, "FILE", tmp_path / "prefect.yaml")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def wait_for(path: Path, run: str, services_dir: Path) -> None:
    """Until the flow run has written ``path``; else what became of it."""
    deadline = time.monotonic() + 240  # 6 s on an idle machine; a shared one has taken more than 60
    while not path.exists():
        if time.monotonic() > deadline:
            state = owner_calls.prefect("GET", f"/flow_runs/{run}")[1]["state"]
            pytest.fail(f"{state}\n{processes.log_tail(services_dir / 'services', 'worker')}")
        time.sleep(0.2)


def test_a_shell_with_a_profile_of_another_store_uses_ours_after_env(
    services: stack.Addresses, services_dir: Path
) -> None:
    shell = """eval "$($PYTHON -m flows env run_dir=$RUN_DIR)" && $PYTHON -c '
import boto3
print([bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]])'"""
    theirs = {"AWS_PROFILE": "company", "AWS_DEFAULT_PROFILE": "company", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ours = {"PYTHON": sys.executable, "RUN_DIR": str(services_dir), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", shell], env={**os.environ, **theirs, **ours}, capture_output=True, text=True, timeout=120
    )
    assert "effnet" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_deployment_runs_on_the_worker_and_ends_cleanly_with_it(
    services: stack.Addresses, services_dir: Path, scratch_home: Path
) -> None:
    lines: list[str] = []
    stack.up(services_dir, EMBEDDED, jobs_at_once=1, say=lines.append, only=("worker",))
    assert any("registered" in line for line in lines)
    nightly = owner_calls.prefect("GET", "/deployments/name/train/nightly")[1]
    assert nightly["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
    train = owner_calls.prefect("GET", "/deployments/name/train/train")[1]
    run = owner_calls.prefect("POST", f"/deployments/{train['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})[
        1
    ]
    wait_for(scratch_home / "ran", run["id"], services_dir)
    assert (scratch_home / "ran").read_text() == f"[] {os.environ['AWS_ACCESS_KEY_ID']}"
    lines.clear()
    stack.up(services_dir, EMBEDDED, jobs_at_once=1, say=lines.append, only=("worker",))
    assert lines == []  # the digest is known: no second `prefect deploy`

    assert stack.down(services_dir, only=["worker"]) == ["worker"]
    assert processes.running(services_dir / "services", "worker") is None
    assert owner_calls.prefect("GET", f"/flow_runs/{run['id']}")[1]["state_name"] == "Cancelled"
    assert (scratch_home / "cleaned").exists()
    assert not [line for line in ours(services_dir) if b"prefect.engine" in line]


@pytest.mark.slow
def test_a_flow_run_outlives_its_killed_worker_and_its_log_reaches_prefect(
    services: stack.Addresses, services_dir: Path, scratch_home: Path
) -> None:
    stack.up(services_dir, EMBEDDED, jobs_at_once=1, say=silent, only=("worker",))
    train = owner_calls.prefect("GET", "/deployments/name/train/train")[1]
    body = {"state": {"type": "SCHEDULED"}, "parameters": {"overrides": ["talk"]}}
    status, made = owner_calls.prefect("POST", f"/deployments/{train['id']}/create_flow_run", body)
    assert status == 201, made
    run = made["id"]
    wait_for(scratch_home / "ran", run, services_dir)
    worker = processes.running(services_dir / "services", "worker")
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    (scratch_home / "go").touch()
    ended = time.monotonic() + 120
    while (state := owner_calls.prefect("GET", f"/flow_runs/{run}")[1]["state_name"]) == "Running":
        assert time.monotonic() < ended
        time.sleep(0.2)
    assert state == "Completed"
    lines: list[str] = []
    while "still here" not in lines and time.monotonic() < ended:  # they are sent in batches
        said = owner_calls.prefect("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})[1]
        lines = [line["message"] for line in said]
        time.sleep(0.2)
    assert "still here" in lines


def test_prefect_yaml_holds_no_path_of_a_machine() -> None:
    text = deployments.FILE.read_text()
    assert not re.search(r"(?m)[\s\"':]/\w", text)
    named = re.findall(r"(?m)^  - name: (\w+)", text)
    entries = re.findall(r"entrypoint: flows\.(\w+)\.(\w+)", text)
    assert named == [flow.rstrip("_") for _, flow in entries]  # import is a word of Python
    assert all(hasattr(importlib.import_module(f"flows.{module}"), flow) for module, flow in entries)
