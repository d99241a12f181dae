"""The engine of a Kubernetes cluster: each job is an Indexed Job. Its functions are documented in ``engine.py``.

The name of the Job follows from the run folder, so the API server refuses a second one and every supervisor finds it.
The pods of a job on several machines meet at the pod of index 0, whose name a headless Service resolves. Needs the
official client: ``pip install effnet[kubernetes]``.

Kubeflow's TrainJob is not offered: its fields (v1alpha1, ``kubeflow-trainer-api`` 2.3.0) and the patches of its runtime
have neither podFailurePolicy nor backoffLimit, ttlSecondsAfterFinished, envFrom and priorityClassName, on which these
Jobs rely; a runtime of the cluster would have to set all of them. A cluster with Kubeflow Trainer runs Jobs as well,
and Kueue queues both.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from conf import schema
from conf.overrides import expand_home
from infra.errors import ConfigError, EffnetError, LostError, NotFoundError, QueueFullError, TransientError
from infra.launch.job import JobSpec
from infra.launch.local import last_lines, share_token
from infra.launch.manifests import GRACE_S, JOB_LABEL, job_name, manifests, permanent_codes

POLL_S = 5.0
LIMITED = False
_ANSWER_S = 30.0
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
_PULL = ("ErrImagePull", "ImagePullBackOff")  # no such image, or a registry that does not answer now
_PULL_S = 90.0  # how long an image may not be pulled: a kubelet has tried again after 10, 20 and 40 s


@dataclass
class KubernetesJob:
    """A Job of a namespace."""

    namespace: str
    name: str
    label: str
    adopted: bool
    queued: bool = True
    reason: str = ""
    unpulled_since: float | None = None  # since when the polls have seen that an image cannot be pulled

    @property
    def log(self) -> str:
        """The command that prints its output."""
        return f"kubectl logs --namespace {self.namespace} --selector {JOB_LABEL}={self.name}"


def check(launch: schema.Launch) -> None:
    """Lets the API server check such a Job (namespace, rights, schema, policies) without creating it."""
    spec = JobSpec("check", "check", "models.train", "s3://bucket/jobs/check", launch, Path())
    try:
        with suppress(QueueFullError):  # it is submitted later
            _call("create_namespaced_job", launch.kubernetes.namespace, manifests(spec)[-1], dry_run="All")
    except NotFoundError as error:
        raise ConfigError(f"{error}; launch.kubernetes.namespace must exist") from error


def describe(spec: JobSpec) -> str:
    """Returns the manifests as YAML, which kubectl can apply."""
    import yaml

    return str(yaml.safe_dump_all(manifests(spec), sort_keys=False)).rstrip()


def submit(spec: JobSpec) -> KubernetesJob:
    """Creates the Job and its Service. An unfinished Job of the same name is adopted, a finished one is replaced."""
    namespace, name = spec.launch.kubernetes.namespace, job_name(spec)
    *services, job = manifests(spec)
    if services:
        share_token(spec.job_uri)
    created = _call("create_namespaced_job", namespace, job)
    if created is None:
        existing = find(spec)
        if existing is not None:
            return existing
        _delete(namespace, name)
        created = _call("create_namespaced_job", namespace, job)
        if created is None:
            raise TransientError(f"launch.engine=kubernetes: another supervisor has just created {namespace}/{name}")
    _create_services(spec, created)
    return KubernetesJob(namespace, name, spec.label, adopted=False)


def _create_services(spec: JobSpec, job: dict[str, Any]) -> None:
    """Creates the headless Service of a Job with several pods, unless it exists; it is deleted with the Job."""
    *services, _ = manifests(spec)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job_name(spec), "uid": job["metadata"]["uid"]}
    for service in services:
        owned = {**service["metadata"], "ownerReferences": [{**owner, "blockOwnerDeletion": True}]}
        _call("create_namespaced_service", spec.launch.kubernetes.namespace, {**service, "metadata": owned})


def find(spec: JobSpec) -> KubernetesJob | None:
    """Returns the waiting or running Job of this run folder, whoever created it.

    Its Service is created if it is missing, because a supervisor may have died between the two.
    """
    namespace, name = spec.launch.kubernetes.namespace, job_name(spec)
    with suppress(NotFoundError):
        job = _call("read_namespaced_job", name, namespace)
        if not _has_ended(job) and "deletionTimestamp" not in job["metadata"]:
            _create_services(spec, job)
            return KubernetesJob(namespace, name, spec.label, adopted=True)
    return None


def poll(job: KubernetesJob) -> int | None:
    """Returns None while the Job waits or runs, then the exit code of the pod that failed it.

    Raises:
        ConfigError: A pod cannot start: its image or a Secret is missing.
    """
    try:
        state = _call("read_namespaced_job", job.name, job.namespace)
    except NotFoundError:
        return 0
    except TransientError:
        return None  # the job does not need the API server; the timeouts of its status object apply
    if _condition(state, "Complete"):
        return 0
    if _condition(state, "Failed"):
        containers = _containers(_pods(job))
        ended = [s["state"]["terminated"]["exitCode"] for s in containers if "terminated" in s.get("state", {})]
        codes = [code for code in ended if code]
        return next((code for code in codes if code in permanent_codes()), codes[-1] if codes else LostError.exit_code)
    status = state.get("status", {})
    # The pods that run wait for the others, which may not have a node yet.
    job.queued = (status.get("ready") or 0) + (status.get("succeeded") or 0) < state["spec"]["parallelism"]
    if not job.queued:
        job.reason, job.unpulled_since = "", None
        return None
    pods = _pods(job)
    waiting = [container.get("state", {}).get("waiting", {}) for container in _containers(pods)]
    unpulled = _said(waiting, _PULL)
    job.unpulled_since = (job.unpulled_since or time.monotonic()) if unpulled else None
    patient = job.unpulled_since is None or time.monotonic() - job.unpulled_since < _PULL_S
    if refusal := _said(waiting, _HOPELESS) or ("" if patient else unpulled):
        raise ConfigError(f"launch.engine=kubernetes: {job.label} cannot start in {job.namespace}: {refusal}")
    job.reason = unpulled or _reason(state, pods)
    return None


def _said(waiting: list[dict[str, Any]], reasons: tuple[str, ...]) -> str:
    """The first of these reasons for which a container waits, with its message; empty without any."""
    return next((f"{w['reason']}: {w.get('message', '')}" for w in waiting if w.get("reason") in reasons), "")


def _reason(job: dict[str, Any], pods: list[dict[str, Any]]) -> str:
    """Why a Job waits: its queue has not admitted it, or no node has what a pod requests (nodes may still be added)."""
    if job["spec"].get("suspend"):
        return "suspended until its queue admits it"
    conditions = [condition for pod in pods for condition in pod.get("status", {}).get("conditions") or []]
    unscheduled = [c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"]
    return next((str(condition.get("message") or condition.get("reason", "")) for condition in unscheduled), "")


def logs(job: KubernetesJob) -> str:
    """Returns the last lines of the newest pod that failed, or else of the newest one."""
    pods = sorted(_pods(job), key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    for pod in (failed or pods)[-1:]:
        with suppress(EffnetError):
            name = pod["metadata"]["name"]
            return last_lines(str(_call("read_namespaced_pod_log", name, job.namespace, tail_lines=200)))
    return ""


def cancel(job: KubernetesJob) -> None:
    """Deletes an unfinished Job, whose pods first save their state, and waits for their end; an adopted one is left."""
    if not job.adopted:
        with suppress(TransientError, NotFoundError):
            if not _has_ended(_call("read_namespaced_job", job.name, job.namespace)):
                _delete(job.namespace, job.name)


def _delete(namespace: str, name: str) -> None:
    deadline = time.monotonic() + GRACE_S + 15
    with suppress(NotFoundError):
        _call("delete_namespaced_job", name, namespace, propagation_policy="Foreground")
        while time.monotonic() < deadline:
            _call("read_namespaced_job", name, namespace)
            time.sleep(0.5)


def _pods(job: KubernetesJob) -> list[dict[str, Any]]:
    try:
        pods: list[dict[str, Any]] = _call(
            "list_namespaced_pod", job.namespace, label_selector=f"{JOB_LABEL}={job.name}"
        )["items"]
    except (TransientError, NotFoundError):
        return []
    return pods


def _containers(pods: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for pod in pods:
        yield from pod.get("status", {}).get("containerStatuses") or []


def _has_ended(job: dict[str, Any]) -> bool:
    return _condition(job, "Complete") or _condition(job, "Failed")


def _condition(job: dict[str, Any], kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions") or []
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)


def _call(function: str, *arguments: Any, **options: Any) -> Any:
    """Calls a function of the client; returns the decoded answer, or None if the object exists already (409).

    Raises:
        ConfigError: No client, no cluster, or a request that the server refuses.
        NotFoundError: No such object.
        QueueFullError: The namespace has as many Jobs as its quota allows.
        TransientError: The server does not answer.
    """
    with _errors(function) as client:
        try:
            answer = _answer(client, function, *arguments, **options)
        except client.ApiException as error:
            if error.status == 409:
                return None
            if error.status != 401:
                raise
            _connect.cache_clear()  # the credentials in the file may be new
            answer = _answer(client, function, *arguments, **options)
    return answer.decode(errors="replace") if function.endswith("_log") else json.loads(answer)


def _answer(client: Any, function: str, *arguments: Any, **options: Any) -> bytes:
    connection = _connect(os.environ.get("KUBECONFIG"))
    group = client.BatchV1Api(connection) if function.endswith("_job") else client.CoreV1Api(connection)
    call = getattr(group, function)
    return bytes(call(*arguments, **options, _preload_content=False, _request_timeout=_ANSWER_S).data)


@lru_cache(maxsize=1)
def _connect(kubeconfig: str | None) -> Any:
    """Returns the connection of this process: reading the configuration may run a program that gets a token.

    The client itself renews a token that expires. Without a configuration, in a pod, it is that of its service account.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and not Path(expand_home("~/.kube/config")).exists()
    if in_pod and not kubeconfig:
        config.load_incluster_config(client_configuration=configuration)
    else:
        config.load_kube_config(kubeconfig, client_configuration=configuration)
    return client.ApiClient(configuration)


@contextmanager
def _errors(function: str) -> Iterator[Any]:
    try:
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError
    except ImportError as error:
        raise ConfigError(
            "launch.engine=kubernetes needs the client of Kubernetes: pip install 'effnet[kubernetes]'"
        ) from error
    try:
        yield client
    except config.ConfigException as error:
        raise ConfigError(f"launch.engine=kubernetes: no cluster is configured (KUBECONFIG): {error}") from error
    except client.ApiException as error:
        message = f"launch.engine=kubernetes: {function}: {error.status} {_message(error)}"
        if error.status == 404:
            raise NotFoundError(message) from error
        if error.status == 403 and "exceeded quota" in message:  # of Jobs; pods wait by themselves
            raise QueueFullError(message) from error
        raise (TransientError if error.status >= 500 or error.status == 429 else ConfigError)(message) from error
    except HTTPError as error:
        raise TransientError(f"launch.engine=kubernetes: the API server does not answer: {error}") from error


def _message(error: Any) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(error.body)["message"])
    return str(error.reason)
