"""How the answers of Prefect about a job and its workers are read; Prefect is a stand-in here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.schema import Launch
from infra.errors import ConfigError, LostError
from infra.launch import workpool
from infra.launch.job import JobSpec
from infra.launch.workpool import EXIT_CODE, REFUSED, FlowRunJob
from infra.services import prefect_api


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")


def answer(monkeypatch: pytest.MonkeyPatch, *states: tuple[str, str | None]) -> FlowRunJob:
    """A flow run in these states, one after the other."""
    left = [{"state": {"type": kind, "message": message}} for kind, message in states]
    monkeypatch.setattr(prefect_api, "call", lambda *_: (200, left.pop(0) if len(left) > 1 else left[0]))
    return FlowRunJob("1", "log", adopted=False)


def test_what_a_worker_refuses_is_a_mistake_in_its_words_and_is_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    job = answer(monkeypatch, ("FAILED", f"{REFUSED}the job needs 2 GPUs (launch.nproc_per_node), this worker has 1"))
    with pytest.raises(ConfigError, match=r"^the job needs 2 GPUs"):
        workpool.poll(job)
    workpool.cancel(job)


@pytest.mark.parametrize(
    ("state", "message", "code"),
    [
        ("SCHEDULED", None, None),
        ("RUNNING", None, None),
        ("COMPLETED", None, 0),
        ("CANCELLED", None, 143),
        ("FAILED", EXIT_CODE.format(code=9), 9),
        ("CRASHED", "no heartbeat for 120 s", LostError.exit_code),
        ("FAILED", None, LostError.exit_code),
    ],
)
def test_how_a_flow_run_ended_becomes_an_exit_code(
    state: str, message: str | None, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workpool.poll(answer(monkeypatch, (state, message))) == code


def test_a_job_is_submitted_again_though_its_oldest_flow_runs_were_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may delete flow runs after some time; their number then is that of one that has ended."""
    ended = {"k:1": {"id": "second", "state": {"type": "FAILED"}}}

    def request(_: str, path: str, body: Any = None) -> tuple[int, Any]:
        if path == "/flow_runs/count":
            return 200, 1  # of two, the first was deleted
        if path == "/deployments/name/job/job":
            return 200, {"id": "d"}
        return 201, ended.get(body["idempotency_key"], {"id": "third", "state": {"type": "SCHEDULED"}})

    monkeypatch.setattr(workpool, "_request", request)
    launch = Launch(engine="workpool")
    spec = JobSpec("k", "k", "models.train", "s3://b/jobs/k", launch, Path("/nowhere"))
    assert workpool.submit(spec).run_id == "third"


def test_a_supervisor_that_counts_the_flow_run_of_another_gets_that_flow_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: dict[str, dict[str, Any]] = {}

    def request(_: str, path: str, body: Any = None) -> tuple[int, Any]:
        if path == "/flow_runs/count":
            return 200, len(runs)
        if path == "/deployments/name/job/job":
            return 200, {"id": "d"}
        new = {"id": f"run {len(runs)}", "state": {"type": "SCHEDULED"}}
        return 201, runs.setdefault(body["idempotency_key"], new)

    monkeypatch.setattr(workpool, "_request", request)
    spec = JobSpec("k", "k", "models.train", "s3://b/jobs/k", Launch(engine="workpool"), Path("/nowhere"))
    first, second = workpool.submit(spec), workpool.submit(spec)
    assert first.run_id == second.run_id
    runs["k:0"]["state"]["type"] = "CANCELLED"
    assert workpool.submit(spec).run_id != first.run_id


@pytest.mark.parametrize(("workers", "warns"), [([], True), (["OFFLINE"], True), (["OFFLINE", "ONLINE"], False)])
def test_a_pool_without_a_worker_is_named(workers: list[str], warns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(_: str, path: str, __: Any = None) -> tuple[int, Any]:
        if path == "/deployments/name/job/job":
            return 200, {"work_pool_name": "gpus"}
        assert path == "/work_pools/gpus/workers/filter"
        return 200, [{"status": status} for status in workers]

    lines: list[str] = []
    monkeypatch.setattr(workpool, "_request", request)
    monkeypatch.setattr(workpool.log, "warning", lambda text, *words: lines.append(text % words))
    workpool.check_server()
    assert lines == ["no worker of pool gpus is online: jobs wait until one is (`effnet worker`)"] * warns


def test_a_job_on_several_machines_is_not_for_workers() -> None:
    with pytest.raises(ValueError, match=r"launch.nnodes=2 is not for launch.engine=workpool"):
        Launch(engine="workpool", nnodes=2, rendezvous="n1:29500")
