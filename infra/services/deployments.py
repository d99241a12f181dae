"""Configures a new Prefect server: work pool, concurrency limit, heartbeat automation and deployments."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from conf.text import quoted
from infra.errors import ConfigError, TransientError
from infra.services import schedule
from infra.services.prefect_api import PrefectApi, call, from_environment
from infra.services.processes import log_path, log_tail
from infra.services.programs import WORK_POOL, WORKER

FILE = Path(__file__).resolve().parents[1] / "prefect.yaml"
_DEPLOY_TIMEOUT_S = 180.0
_BUSY_S = 60.0
HEARTBEAT_S = 30  # Prefect's default is 180, its minimum 30
WITHIN_S = 4 * HEARTBEAT_S  # tolerates three missed heartbeats of a busy machine
# Prefect's default lets the caller of a flow run choose the command, its variables and its folder. Here nothing may be
# chosen; even an `env` entry must be absent, because the worker would merge the caller's variables into it.
JOB_TEMPLATE: dict[str, object] = {
    # A flow whose output is the worker's pipe crashes at its next line when the worker dies.
    "job_configuration": {"stream_output": False},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}


def set_limits(api: PrefectApi, jobs_at_once: int) -> None:
    """Creates the work pool and sets the concurrency limit ``accelerator``; both may already exist.

    Raises:
        TransientError: The server refuses, or stays busy for a minute.
    """
    pool: dict[str, object] = {"name": WORK_POOL, "type": "process", "base_job_template": JOB_TEMPLATE}
    if _call_until_ok(api, "POST", "/work_pools/", pool, fine=(200, 201, 409)) == 409:
        path = f"/work_pools/{WORK_POOL}"
        if call(api, "GET", path)[1].get("base_job_template") != JOB_TEMPLATE:
            _call_until_ok(api, "PATCH", path, {"base_job_template": JOB_TEMPLATE}, fine=(200, 204))
    limits = "/v2/concurrency_limits/"
    limit: dict[str, object] = {"name": "accelerator", "limit": jobs_at_once, "slot_decay_per_second": 0}
    if _call_until_ok(api, "POST", limits, limit, fine=(200, 201, 409)) == 409:
        _call_until_ok(api, "PATCH", f"{limits}accelerator", {"limit": jobs_at_once}, fine=(200, 204))


def limit_jobs(api: PrefectApi, jobs_at_once: int) -> None:
    """Limits the concurrent runs of the deployment ``job``; others wait in the queue, not as processes of a worker.

    Raises:
        TransientError: The server refuses, or stays busy for a minute.
    """
    status, deployment = call(api, "GET", "/deployments/name/job/job")
    if status != 200 or (deployment.get("global_concurrency_limit") or {}).get("limit") == jobs_at_once:
        return
    body: dict[str, object] = {
        "concurrency_limit": jobs_at_once,
        "concurrency_options": {"collision_strategy": "ENQUEUE"},
    }
    _call_until_ok(api, "PATCH", f"/deployments/{deployment['id']}", body, fine=(200, 204))


def watch_flows(api: PrefectApi) -> None:
    """Makes the server mark flow runs without heartbeat as crashed; otherwise those of a lost machine stay Running.

    Source: Prefect documentation, "How to detect and respond to zombie flows".

    Raises:
        TransientError: The server refuses, or stays busy for a minute.
    """
    name = "effnet: crash flow runs without heartbeat"
    status, automations = call(api, "POST", "/automations/filter", {"automations": {"name": {"any_": [name]}}})
    if status == 200 and automations:
        return
    ends = [f"prefect.flow-run.{state}" for state in ("heartbeat", "Completed", "Failed", "Cancelled", "Crashed")]
    trigger = {
        "type": "event",
        "posture": "Proactive",
        "after": ["prefect.flow-run.heartbeat"],
        "expect": ends,
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": WITHIN_S,
    }
    action = {
        "type": "change-flow-run-state",
        "state": "CRASHED",
        "message": f"no heartbeat for {WITHIN_S} s: its process or machine is gone",
    }
    body: dict[str, object] = {"name": name, "trigger": trigger, "actions": [action]}
    _call_until_ok(api, "POST", "/automations/", body, fine=(200, 201))


def _call_until_ok(api: PrefectApi, method: str, path: str, body: dict[str, object], fine: Collection[int]) -> int:
    """Repeats a call until its status is one of ``fine``: on SQLite the server answers 503 during another write."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        status, answer = call(api, method, path, body, timeout_s=30.0)
        if status in fine:
            return status
        if time.monotonic() > deadline or (0 < status < 500):
            raise TransientError(f"Prefect does not accept {method} {api.url}{path}: {status} {answer}")
        time.sleep(0.5)


def deploy(folder: Path, environment: dict[str, str]) -> bool:
    """Registers the deployments of ``infra/prefect.yaml``; False if this database already has them.

    Raises:
        ConfigError: `prefect deploy` failed; the message holds its last lines.
    """
    record = folder / "prefect" / "deployed.sha256"  # beside the database, so that both are deleted together
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()
    if record.exists() and record.read_text() == digest:
        return False
    kept = _changed_schedule(environment)
    argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(FILE)]
    with log_path(folder, "deploy").open("wb") as output:
        try:
            process = subprocess.run(
                argv,
                cwd=folder,
                env=environment,
                timeout=_DEPLOY_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise TransientError(f"`prefect deploy` took more than {_DEPLOY_TIMEOUT_S:.0f} s") from error
    if process.returncode != 0:
        raise ConfigError(f"`prefect deploy --prefect-file {FILE}` failed:{quoted(log_tail(folder, 'deploy'))}")
    if kept is not None:
        schedule.write(from_environment(environment), kept)
    record.write_text(digest)
    return True


def _changed_schedule(environment: dict[str, str]) -> schedule.Schedule | None:
    """The schedule of the nights, which `prefect deploy` sets back to that of the file; None if there is none yet."""
    try:
        return schedule.read(from_environment(environment))
    except ConfigError:
        return None


def worker_answers(api: PrefectApi, since: float = 0.0) -> bool:
    """Whether the embedded worker sent a heartbeat after ``since`` (unix seconds) and recently."""
    status, workers = call(api, "POST", f"/work_pools/{WORK_POOL}/workers/filter", {})
    for worker in workers if status == 200 else []:
        last_heartbeat = datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp()
        if worker["name"] == WORKER and worker["status"] == "ONLINE":
            return last_heartbeat > max(since, time.time() - 120.0)  # sent every 30 s
    return False


def cancel_runs(api: PrefectApi, patience_s: float = 30.0) -> int:
    """Cancels the flow runs of the work pool and waits for their end; returns the number of cancelled runs.

    A worker that is merely stopped kills its flow runs immediately: no ``finally`` runs, the trainer receives no
    SIGTERM and cannot save, and the server shows the runs as Running forever.
    """
    query = {
        "work_pools": {"name": {"any_": [WORK_POOL]}},
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}},
    }
    cancelled: set[str] = set()
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        status, runs = call(api, "POST", "/flow_runs/filter", query)
        if status == 0 or runs == []:
            break
        for run in runs if status == 200 else []:
            path, state = f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}}
            if run["id"] not in cancelled and call(api, "POST", path, state)[0] in (200, 201):
                cancelled.add(run["id"])
        time.sleep(0.25)
    return len(cancelled)
