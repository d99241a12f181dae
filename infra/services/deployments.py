"""Configures a Prefect server: work pool, concurrency limits, heartbeat automation and deployments.

``plan`` lists what is missing or differs, ``Change.apply`` makes it so. Only objects of effnet are changed: the pool
``effnet``, the limit ``accelerator``, one automation, and the deployments of ``infra/prefect.yaml``.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from conf.text import quoted
from infra import machine
from infra.errors import ConfigError, TransientError
from infra.launch.manifests import LABELS
from infra.services.prefect_api import PrefectApi, call, request
from infra.services.processes import log_path, log_tail
from infra.services.programs import TAG, WORK_POOL, WORKER
from infra.store import files

FILE = Path(__file__).resolve().parents[1] / "prefect.yaml"
LIMIT = "accelerator"
JOBS_QUEUE = "jobs"  # queue of the deployment `job` in the work pool
JOBS_WORKER = f"{WORKER}-{JOBS_QUEUE}"  # the part of the embedded worker that takes jobs
_DEPLOY_TIMEOUT_S = 180.0
_CANCEL_S = 30.0  # a job saves its state within 20 s
HEARTBEAT_S = 30  # Prefect's default is 180, its minimum 30
WITHIN_S = 4 * HEARTBEAT_S  # tolerates three missed heartbeats of a busy machine
# Prefect's default lets the caller of a flow run choose the command, its variables and its folder. Here nothing may be
# chosen; even an `env` entry must be absent, because the worker would merge the caller's variables into it.
JOB_TEMPLATE: dict[str, object] = {
    # A flow whose output is the worker's pipe crashes at its next line when the worker dies.
    "job_configuration": {"stream_output": False},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
_AUTOMATION = "effnet: crash flow runs without heartbeat"


@dataclass(frozen=True)
class Change:
    """One change to a server: the line that is printed, and the call that makes it."""

    text: str
    apply: Callable[[], object]


@dataclass(frozen=True)
class Pool:
    """A work pool, and how its workers start a flow run."""

    name: str
    kind: str = "process"
    template: Mapping[str, object] = field(default_factory=lambda: JOB_TEMPLATE)


def plan(
    api: PrefectApi,
    deployments: Sequence[Mapping[str, Any]],
    jobs_at_once: int,
    *,
    keep_limit: bool,
    pools: Sequence[Pool] = (Pool(WORK_POOL),),
) -> list[Change]:
    """Returns the changes after which the server is configured; an empty list if it is.

    Args:
        api: The server.
        deployments: What ``define`` returns.
        jobs_at_once: Value of the concurrency limit ``accelerator``.
        keep_limit: Whether an existing limit keeps its value.
        pools: Work pools of the deployments.

    Raises:
        ConfigError: The server refuses, or an object with one of our names belongs to something else.
        TransientError: The server does not answer, or stays busy for a minute.
    """
    return [
        *(change for pool in pools for change in _plan_pool(api, pool)),
        *_plan_limit(api, jobs_at_once, keep=keep_limit),
        *_plan_automation(api),
        *(change for definition in deployments for change in _plan_deployment(api, definition)),
    ]


def _plan_pool(api: PrefectApi, pool: Pool) -> list[Change]:
    name, path = pool.name, f"/work_pools/{pool.name}"
    status, present = request(api, "GET", path, known=(404,))
    if status == 404:
        body = {"name": name, "type": pool.kind, "base_job_template": pool.template}
        return [Change(f"work pool {name}: created", lambda: request(api, "POST", "/work_pools/", body))]
    if present["type"] != pool.kind:
        raise ConfigError(f"Prefect at {api.url} has a work pool {name} of type {present['type']}; delete or rename it")
    if present["base_job_template"] == pool.template:
        return []
    if name != WORK_POOL and not _is_template_of_effnet(present["base_job_template"]):
        raise ConfigError(f"Prefect at {api.url} has a work pool {name} with another job template: take a new name")
    template = {"base_job_template": pool.template}
    text = f"work pool {name}: job template replaced, callers choose neither command nor variables"
    return [Change(text, lambda: request(api, "PATCH", path, template))]


def _is_template_of_effnet(template: Mapping[str, Any]) -> bool:
    """Whether these are pods of effnet, perhaps with another image or other resources."""
    manifest = template.get("job_configuration", {}).get("job_manifest")
    return isinstance(manifest, dict) and LABELS.items() <= manifest.get("metadata", {}).get("labels", {}).items()


def _plan_limit(api: PrefectApi, jobs_at_once: int, *, keep: bool) -> list[Change]:
    path = f"/v2/concurrency_limits/{LIMIT}"
    status, limit = request(api, "GET", path, known=(404,))
    if status == 404:
        body = {"name": LIMIT, "limit": jobs_at_once, "slot_decay_per_second": 0}
        text = f"concurrency limit {LIMIT}: created, {jobs_at_once}"
        return [Change(text, lambda: request(api, "POST", "/v2/concurrency_limits/", body))]
    if keep or limit["limit"] == jobs_at_once:
        return []
    text = f"concurrency limit {LIMIT}: {limit['limit']} -> {jobs_at_once}"
    return [Change(text, lambda: request(api, "PATCH", path, {"limit": jobs_at_once}))]


def _plan_automation(api: PrefectApi) -> list[Change]:
    """Makes the server mark flow runs without heartbeat as crashed; otherwise those of a lost machine stay Running.

    Source: Prefect documentation, "How to detect and respond to zombie flows". Flow runs without the tag ``effnet``
    are not watched: those of other people may send their heartbeats less often.
    """
    ends = [f"prefect.flow-run.{state}" for state in ("heartbeat", "Completed", "Failed", "Cancelled", "Crashed")]
    trigger = {
        "type": "event",
        "posture": "Proactive",
        "after": ["prefect.flow-run.heartbeat"],
        "expect": ends,
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "match_related": {"prefect.resource.id": [f"prefect.tag.{TAG}"], "prefect.resource.role": ["tag"]},
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": WITHIN_S,
    }
    action = {
        "type": "change-flow-run-state",
        "state": "CRASHED",
        "message": f"no heartbeat for {WITHIN_S} s: its process or machine is gone",
    }
    body = {"name": _AUTOMATION, "trigger": trigger, "actions": [action]}
    query = {"automations": {"name": {"any_": [_AUTOMATION]}}}
    _, automations = request(api, "POST", "/automations/filter", query)
    if not automations:
        return [Change(f"automation `{_AUTOMATION}`: created", lambda: request(api, "POST", "/automations/", body))]
    present = automations[0]
    if all(_normal(present["trigger"].get(key)) == _normal(value) for key, value in trigger.items()):
        return []
    path = f"/automations/{present['id']}"
    return [Change(f"automation `{_AUTOMATION}`: replaced", lambda: request(api, "PUT", path, body))]


def _normal(value: Any) -> Any:
    """A value of a trigger as comparable JSON: the server orders its lists anew and writes lists of one as text."""
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted(value)
    return [value] if isinstance(value, str) else value


def _plan_deployment(api: PrefectApi, definition: Mapping[str, Any]) -> list[Change]:
    flow, body = definition["flow"], dict(definition["body"])
    name = f"{flow}/{body['name']}"
    status, present = request(api, "GET", f"/deployments/name/{name}", known=(404,))

    def create() -> None:
        _, record = request(api, "POST", "/flows/", {"name": flow})
        request(api, "POST", "/deployments/", {**body, "flow_id": record["id"]})

    if status == 404:
        return [Change(f"deployment {name}: created", create)]
    if present["entrypoint"] != body["entrypoint"] and TAG not in present["tags"]:
        raise ConfigError(
            f"Prefect at {api.url} has a deployment {name} that runs {present['entrypoint']}: rename or delete it"
        )
    if body["schedules"]:
        body |= {
            "schedules": [_keep_schedule(schedule, present["schedules"]) for schedule in body["schedules"]],
            "parameters": present["parameters"],  # of the scheduled runs
        }
    differs = [key for key, value in body.items() if _of_deployment(present, key) != _of_deployment(body, key, value)]
    return [Change(f"deployment {name}: {', '.join(differs)} changed", create)] if differs else []


def _keep_schedule(schedule: Mapping[str, Any], present: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A schedule that a user has paused or moved (``effnet nightly --schedule``) stays so."""
    kept = next((old for old in present if old.get("slug") == schedule["slug"]), schedule)
    times = {key: kept["schedule"][key] for key in ("cron", "timezone")}
    return {"schedule": times, "slug": schedule["slug"], "active": kept["active"]}


def _of_deployment(deployment: Mapping[str, Any], key: str, value: Any = None) -> Any:
    """A field of a deployment, of a definition or of the server's answer, in the form in which they are compared."""
    value = deployment.get(key) if value is None else value
    if key == "schedules":
        parts = ("cron", "timezone")
        return [(item.get("slug"), item["active"], *(item["schedule"].get(part) for part in parts)) for item in value]
    if key == "concurrency_limit":
        return (deployment.get("global_concurrency_limit") or {"limit": value})["limit"]
    if key == "concurrency_options":
        return (value or {}).get("collision_strategy")
    return sorted(value) if key == "tags" else value


def read_entries(file: Path) -> list[dict[str, Any]]:
    """Returns the deployments of a file in the format of ``infra/prefect.yaml``.

    Raises:
        ConfigError: The file does not exist or does not have this format.
    """
    with files.errors(file):
        text = file.read_text(encoding="utf-8")
    try:
        entries: list[dict[str, Any]] = yaml.safe_load(text)["deployments"]
        assert all({"name", "description", "entrypoint"} <= entry.keys() for entry in entries)  # noqa: S101
    except (yaml.YAMLError, AssertionError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{file} is no list of deployments in the format of infra/prefect.yaml") from error
    return entries


def define(
    entry: Mapping[str, Any], flow: str, parameters_schema: Mapping[str, Any], version: str, pool: str
) -> dict[str, Any]:
    """Returns the name of the flow and the request that creates a deployment.

    Args:
        entry: Entry of ``infra/prefect.yaml``.
        flow: Name of the flow.
        parameters_schema: JSON schema of the flow's parameters.
        version: As ``digest`` returns it.
        pool: Name of its work pool.
    """
    schedules = [
        {"schedule": {"cron": item["cron"], "timezone": item["timezone"]}, "slug": item["slug"], "active": True}
        for item in entry.get("schedules", [])
    ]
    body = {
        "name": entry["name"],
        "description": entry["description"],
        "entrypoint": entry["entrypoint"],
        "parameters": entry.get("parameters", {}),
        "parameter_openapi_schema": parameters_schema,
        "work_pool_name": pool,
        "work_queue_name": entry.get("work_queue", "default"),
        "pull_steps": [],
        "tags": [TAG],
        "version": version,
        "schedules": schedules,
    }
    if limit := entry.get("concurrency_limit"):
        body["concurrency_limit"] = limit["limit"]
        body["concurrency_options"] = {"collision_strategy": limit["collision_strategy"]}
    return {"flow": flow, "body": body}


def digest(file: Path) -> str:
    """Returns a digest of the definitions, the flows and the choices of their forms.

    Deployments of another digest are registered again.
    """
    hasher = hashlib.sha256(file.read_bytes())
    for path in sorted([*(machine.CODE / "flows").rglob("*.py"), *(machine.CODE / "conf").rglob("*.yaml")]):
        hasher.update(str(path.relative_to(machine.CODE)).encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()[:12]


def set_limits(api: PrefectApi, jobs_at_once: int) -> None:
    """Creates or corrects the work pool, the concurrency limit ``accelerator`` and the automation.

    Raises:
        ConfigError, TransientError: As ``plan``.
    """
    for change in plan(api, [], jobs_at_once, keep_limit=False):
        change.apply()


def lift_limit_of_jobs(api: PrefectApi) -> None:
    """Removes the limit that earlier versions gave the deployment ``job``: it would count the jobs of all workers.

    Raises:
        ConfigError, TransientError: As ``plan``.
    """
    status, deployment = request(api, "GET", "/deployments/name/job/job", known=(404,))
    if status == 200 and deployment.get("global_concurrency_limit"):
        request(api, "PATCH", f"/deployments/{deployment['id']}", {"concurrency_limit": None})


def deploy(api: PrefectApi, folder: Path, environment: dict[str, str]) -> bool:
    """Registers the deployments by `effnet deploy` if the server lacks one of this version; whether it did.

    Raises:
        ConfigError: `effnet deploy` failed; the message holds its last lines.
        TransientError: It took too long, or the server does not answer.
    """
    _, registered = request(api, "POST", "/deployments/filter", {"deployments": {"tags": {"all_": [TAG]}}})
    current = {deployment["name"] for deployment in registered if deployment["version"] == digest(FILE)}
    if current >= {entry["name"] for entry in read_entries(FILE)}:
        return False
    argv = [sys.executable, "-m", "flows", "deploy", "--file", str(FILE), f"services.prefect={api.url}"]
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
            raise TransientError(f"`effnet deploy` took more than {_DEPLOY_TIMEOUT_S:.0f} s") from error
    if process.returncode != 0:
        raise ConfigError(f"`effnet deploy` failed:{quoted(log_tail(folder, 'deploy'))}")
    return True


def worker_answers(api: PrefectApi, since: float = 0.0) -> bool:
    """Whether the embedded worker sent a heartbeat after ``since`` (unix seconds) and recently."""
    status, workers = call(api, "POST", f"/work_pools/{WORK_POOL}/workers/filter", {})
    for worker in workers if status == 200 else []:
        last_heartbeat = datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp()
        if worker["name"] == WORKER and worker["status"] == "ONLINE":
            return last_heartbeat > max(since, time.time() - 120.0)  # sent every 30 s
    return False


def cancel_runs(api: PrefectApi) -> list[str]:
    """Cancels the flow runs of the embedded worker and waits for their end; those of other workers continue.

    A worker that is merely stopped kills its flow runs immediately: no ``finally`` runs, the trainer receives no
    SIGTERM and cannot save, and the server shows the runs as Running forever.

    Returns:
        Name and worker of each flow run that continues.
    """
    query = {
        "work_pools": {"name": {"any_": [WORK_POOL]}},
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}},
    }
    cancelled: set[str] = set()
    elsewhere: list[str] = []
    deadline = time.monotonic() + _CANCEL_S
    while time.monotonic() < deadline:
        status, runs = call(api, "POST", "/flow_runs/filter", query)
        if status == 200:
            elsewhere = [
                f"{run['name']} on worker {_worker_of(run)}"
                for run in runs
                if not _is_embedded(run) and run["state_type"] == "RUNNING"
            ]
            runs = [run for run in runs if _is_embedded(run)]
        if status == 0 or runs == []:
            break
        for run in runs if status == 200 else []:
            path, state = f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}}
            if run["id"] not in cancelled and call(api, "POST", path, state)[0] in (200, 201):
                cancelled.add(run["id"])
        time.sleep(0.25)
    return elsewhere


def _worker_of(run: Mapping[str, Any]) -> str:
    """Name of the worker that runs a flow run; empty for one that a worker has taken less than a second ago."""
    return str((run.get("labels") or {}).get("prefect.worker.name", ""))


def _is_embedded(run: Mapping[str, Any]) -> bool:
    return _worker_of(run) in ("", WORKER, JOBS_WORKER)
