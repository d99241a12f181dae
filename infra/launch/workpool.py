"""The engine of a Prefect work pool: each job is one run of the deployment ``job``, on whichever worker is free.

Its functions are documented in ``engine.py``; the worker's side is ``flows/job.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from conf import compose, schema
from conf.text import QUOTE, logger
from infra import machine
from infra.errors import ConfigError, LostError
from infra.launch.job import JobSpec
from infra.services import prefect_api

POLL_S = 2.0
LIMITED = False
DEPLOYMENT = "job/job"
TAG = "effnet.job"  # TAG:KEY marks the flow runs of a job
WAITING = ("SCHEDULED", "PENDING", "PAUSED")
ACTIVE = (*WAITING, "RUNNING", "CANCELLING")
EXIT_CODE = "exit code {code}"  # message of a failed flow run
REFUSED = "refused: "  # begins the message of one whose worker did not start the job, because of a user's mistake
_TERMINATED = 128 + 15
_RESTART_S = 60.0  # jobs outlive a restart of the server
_CANCEL_S = 60.0  # the worker polls for cancellations, then the job saves its state
_LOG_LINES = 25
log = logger()


@dataclass
class FlowRunJob:
    """The flow run of a job."""

    run_id: str
    log: str
    adopted: bool
    queued: bool = True
    reason: str = ""  # Prefect gives none


def check(_launch: schema.Launch) -> None:
    """Accepts every request: only the workers know what their machines have."""


def describe(spec: JobSpec) -> str:
    """Returns the request for the flow run, as JSON."""
    return json.dumps({"deployment": DEPLOYMENT, **_request_of(spec)}, indent=2)


def submit(spec: JobSpec) -> FlowRunJob:
    """Creates the flow run. Two supervisors that submit the same job at the same time get the same flow run."""
    deployment = _deployment()
    request = _request_of(spec)
    _, count = _request("POST", "/flow_runs/count", {"flow_runs": {"tags": {"all_": request["tags"]}}})
    # The last one counted may be the other supervisor's. More than these exist if Prefect has deleted older ones.
    for number in itertools.count(max(count - 1, 0)):
        request["idempotency_key"] = f"{spec.key}:{number}"  # of one that exists, Prefect returns that one
        _, run = _request("POST", f"/deployments/{deployment['id']}/create_flow_run", request)
        if run["state"]["type"] in ACTIVE:
            break
    return _job(run, adopted=False)


def check_server() -> None:
    """Checks, when the services run and before work begins, that Prefect takes jobs; warns if no worker would run them.

    Raises:
        ConfigError: `effnet deploy` has not registered the deployment of jobs.
        TransientError: Prefect does not answer.
    """
    pool = _deployment()["work_pool_name"]
    _, workers = _request("POST", f"/work_pools/{pool}/workers/filter", {})
    if not any(worker["status"] == "ONLINE" for worker in workers or ()):
        log.warning("no worker of pool %s is online: jobs wait until one is (`effnet worker`)", pool)


def _deployment() -> dict[str, Any]:
    status, deployment = _request("GET", f"/deployments/name/{DEPLOYMENT}")
    if status == 404:
        raise ConfigError(
            f"launch.engine=workpool: Prefect at {_api().url} has no deployment {DEPLOYMENT}; "
            "`effnet deploy` registers it"
        )
    return dict(deployment)


def _request_of(spec: JobSpec) -> dict[str, Any]:
    return {
        "name": spec.label,
        "parameters": {
            "key": spec.key,
            "storage": spec.job_uri.removesuffix(f"/jobs/{spec.key}"),
            "launch": compose.to_yaml(spec.launch),
            "label": spec.label,
            "code": machine.training_code(),
        },
        "tags": [f"{TAG}:{spec.key}"],
    }


def find(spec: JobSpec) -> FlowRunJob | None:
    """Returns the waiting or running flow run of this key, whoever submitted it."""
    query = {"flow_runs": {"tags": {"all_": [f"{TAG}:{spec.key}"]}, "state": {"type": {"any_": ACTIVE}}}, "limit": 1}
    _, runs = _request("POST", "/flow_runs/filter", query)
    return _job(runs[0], adopted=True) if runs else None


def poll(job: FlowRunJob) -> int | None:
    """Returns None while the flow run is not at its end, then the job's exit code.

    Raises:
        ConfigError: The worker refused the job: its machine lacks GPUs, or it has another version of effnet.
    """
    status, run = prefect_api.call(_api(), "GET", f"/flow_runs/{job.run_id}")
    if status == 404:
        return 0
    if status != 200:
        return None  # the job does not need Prefect; the timeouts of its status object apply
    state = run["state"]
    job.queued = state["type"] in WAITING
    if state["type"] in ACTIVE:
        return None
    if state["type"] == "CANCELLED":
        return _TERMINATED
    if state["type"] == "COMPLETED":
        return 0
    message = state["message"] or ""
    if message.startswith(REFUSED):
        raise ConfigError(message.removeprefix(REFUSED))
    code = re.fullmatch(EXIT_CODE.format(code=r"(\d+)"), message)
    return int(code[1]) if code else LostError.exit_code


def logs(job: FlowRunJob) -> str:
    """Returns the last lines of the flow run's log: the worker sends the job's own last lines there when it fails."""
    query = {"logs": {"flow_run_id": {"any_": [job.run_id]}}, "sort": "TIMESTAMP_DESC", "limit": 50}
    _, records = _request("POST", "/logs/filter", query)
    ours = [record["message"] for record in reversed(records) if record["name"] == "effnet"]
    lines = [line.removeprefix(QUOTE) for message in ours for line in message.splitlines() if line]
    return "\n".join(lines[-_LOG_LINES:])


def cancel(job: FlowRunJob) -> None:
    """Cancels the flow run and waits until its worker has ended the job; an adopted one is left running."""
    if job.adopted:
        return
    deadline = time.monotonic() + _CANCEL_S
    with suppress(ConfigError):  # a worker has just refused it
        while poll(job) is None and time.monotonic() < deadline:
            state = {"type": "CANCELLED" if job.queued else "CANCELLING"}
            prefect_api.call(_api(), "POST", f"/flow_runs/{job.run_id}/set_state", {"state": state})
            time.sleep(0.5)


def _job(run: dict[str, Any], *, adopted: bool) -> FlowRunJob:
    address = _api().url.removesuffix("/api")
    return FlowRunJob(run["id"], f"{address}/runs/flow-run/{run['id']}", adopted, run["state"]["type"] in WAITING)


def _api() -> prefect_api.PrefectApi:
    return prefect_api.from_environment(os.environ)


def _request(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    return prefect_api.request(_api(), method, path, body, known=(404,), restart_s=_RESTART_S)
