"""The engine of a Kubernetes cluster: each job is an Indexed Job. Its functions are documented in ``engine.py``.

The name of the Job follows from the run folder, so the API server refuses a second one and every supervisor finds it.
The pods of a job on several machines meet at the pod of index 0, whose name a headless Service resolves. Needs the
official client: ``pip install effnet[kubernetes]``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import schema
from infra import machine
from infra.errors import ConfigError, EffnetError, LostError, NotFoundError, PermanentError, TransientError
from infra.launch.command import JOB_FOLDER, RESOLVE_S, TOKEN_URI, TRAINING_CODE, job_environment, torchrun_argv
from infra.launch.job import JobSpec
from infra.launch.local import last_lines, share_token, token_uri

POLL_S = 5.0
LIMITED = False
GRACE_S = 60  # between SIGTERM and SIGKILL of a pod: the job first saves its state
CONTAINER = "trainer"
_SCRATCH = "/scratch"  # the only folders that can be written: an emptyDir here, at /tmp and at /dev/shm
_PORT = 29500
_USER = 1000
_ANSWER_S = 30.0
_PASSED_ON = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")  # no credentials: these come from Secrets
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "ImagePullBackOff", "CreateContainerConfigError")
_LABEL = "batch.kubernetes.io/job-name"  # Kubernetes gives it to the pods of a Job


@dataclass
class KubernetesJob:
    """A Job of a namespace."""

    namespace: str
    name: str
    label: str
    adopted: bool
    queued: bool = True
    reason: str = ""

    @property
    def log(self) -> str:
        """The command that prints its output."""
        return f"kubectl logs --namespace {self.namespace} --selector {_LABEL}={self.name}"


def permanent_codes() -> list[int]:
    """Exit codes of errors that a retry cannot fix; the Job then fails instead of starting its pods again."""
    return sorted({kind.exit_code for kind in PermanentError.__subclasses__()})


def check(launch: schema.Launch) -> None:
    """Lets the API server check such a Job (namespace, rights, schema, policies) without creating it."""
    spec = JobSpec("check", "check", "models.train", "s3://bucket/jobs/check", launch, Path())
    try:
        _call("create_namespaced_job", launch.kubernetes.namespace, manifests(spec)[-1], dry_run="All")
    except NotFoundError as error:
        raise ConfigError(f"{error}; launch.kubernetes.namespace must exist") from error


def describe(spec: JobSpec) -> str:
    """Returns the manifests as YAML, which kubectl can apply."""
    import yaml

    return str(yaml.safe_dump_all(manifests(spec), sort_keys=False)).rstrip()


def manifests(spec: JobSpec) -> list[dict[str, Any]]:
    """Returns the Job, preceded by its headless Service if it has several pods."""
    launch, name = spec.launch, job_name(spec)
    settings = launch.kubernetes
    labels = {"app.kubernetes.io/name": "effnet"}
    if settings.queue is not None:
        labels["kueue.x-k8s.io/queue-name"] = settings.queue
    metadata = {"name": name, "namespace": settings.namespace, "labels": labels}
    job_spec = {
        "completionMode": "Indexed",
        "completions": launch.nnodes,
        "parallelism": launch.nnodes,
        "backoffLimit": launch.relaunches * launch.nnodes,  # every pod of a lost job counts
        "ttlSecondsAfterFinished": settings.ttl_s,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": permanent_codes()},
                },
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(spec)},
    }
    if settings.queue is not None:
        job_spec["suspend"] = True  # until Kueue admits it
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "annotations": {"effnet/job-uri": spec.job_uri}},
        "spec": job_spec,
    }
    selector = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {_LABEL: name}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": selector}
    return [service, job] if launch.nnodes > 1 else [job]


def job_name(spec: JobSpec) -> str:
    """``effnet-KEY-DIGEST`` as a DNS label; the digest is that of the run folder's address."""
    words = re.sub(r"[^a-z0-9]+", "-", spec.key.lower()).strip("-")
    return f"effnet-{words[:36].rstrip('-')}-{hashlib.sha256(spec.job_uri.encode()).hexdigest()[:8]}"


def _pod(spec: JobSpec) -> dict[str, Any]:
    launch = spec.launch
    settings = launch.kubernetes
    optional = {
        "serviceAccountName": settings.service_account,
        "priorityClassName": settings.priority_class,
        "nodeSelector": dict(pair.split("=", 1) for pair in settings.node_selector),
        "tolerations": [_toleration(text) for text in settings.tolerations],
    }
    shared_memory = {"medium": "Memory", "sizeLimit": f"{settings.shared_memory_gb}Gi"}
    return {
        "restartPolicy": "Never",
        "subdomain": job_name(spec),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **{key: value for key, value in optional.items() if value},
        "containers": [_container(spec)],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": shared_memory},
        ],
    }


def _container(spec: JobSpec) -> dict[str, Any]:
    launch, settings = spec.launch, spec.launch.kubernetes
    resources = {
        "cpu": launch.cpus_per_node,
        "memory": f"{launch.memory_gb}Gi" if launch.memory_gb else None,
        settings.gpu_resource: launch.gpus_per_node,
    }
    amounts = {name: str(amount) for name, amount in resources.items() if amount}
    environment = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    return {
        "name": CONTAINER,
        "image": settings.image,
        "command": torchrun_argv(launch, spec.module, spec.job_uri, "python"),
        "workingDir": _SCRATCH,
        "env": [{"name": name, "value": value} for name, value in (environment | _variables(spec)).items()],
        "envFrom": [{"secretRef": {"name": name}} for name in settings.secrets],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "scratch", "mountPath": _SCRATCH},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the pod
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }


def _variables(spec: JobSpec) -> dict[str, str]:
    cores = spec.launch.cpus_per_node or spec.launch.nproc_per_node
    variables = job_environment(spec.launch, cores, f"{_SCRATCH}/cache") | {
        JOB_FOLDER: _SCRATCH,
        "HOME": _SCRATCH,
        TRAINING_CODE: machine.training_code(),
    }
    variables.pop("PYTHONPATH", None)  # of this machine; the image has effnet installed
    if spec.launch.nnodes > 1:
        name = job_name(spec)
        variables |= {
            "PET_RDZV_ENDPOINT": f"{name}-0.{name}:{_PORT}",  # torchrun's --rdzv-endpoint
            TOKEN_URI: token_uri(spec.job_uri),
            RESOLVE_S: "120",  # a Service resolves a pod only some time after its start
        }
    return variables


def _toleration(text: str) -> dict[str, str]:
    """``KEY[=VALUE][:EFFECT]``, as kubectl writes a taint."""
    key, _, effect = text.partition(":")
    key, equals, value = key.partition("=")
    matched = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
    return {"key": key, **matched, **({"effect": effect} if effect else {})}


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
    pods = _pods(job)
    if _condition(state, "Failed"):
        ended = [s["state"]["terminated"]["exitCode"] for s in _containers(pods) if "terminated" in s.get("state", {})]
        codes = [code for code in ended if code]
        return next((code for code in codes if code in permanent_codes()), codes[-1] if codes else LostError.exit_code)
    job.queued = not state.get("status", {}).get("ready")
    job.reason = _reason(state, pods) if job.queued else ""
    for container in _containers(pods) if job.queued else ():
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _HOPELESS:
            said = f"{waiting['reason']}: {waiting.get('message', container.get('image', ''))}"
            raise ConfigError(f"launch.engine=kubernetes: {job.label} cannot start in {job.namespace}: {said}")
    return None


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
        pods: list[dict[str, Any]] = _call("list_namespaced_pod", job.namespace, label_selector=f"{_LABEL}={job.name}")[
            "items"
        ]
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
        TransientError: The server does not answer.
    """
    with _errors(function) as client:
        group = client.BatchV1Api() if function.endswith("_job") else client.CoreV1Api()
        try:
            answer = getattr(group, function)(
                *arguments, **options, _preload_content=False, _request_timeout=_ANSWER_S
            ).data
        except client.ApiException as error:
            if error.status == 409:
                return None
            raise
    return answer.decode(errors="replace") if function.endswith("_log") else json.loads(answer)


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
        config.load_config(config_file=os.environ.get("KUBECONFIG"))  # the client reads it only when it is imported
        yield client
    except config.ConfigException as error:
        raise ConfigError(f"launch.engine=kubernetes: no cluster is configured (KUBECONFIG): {error}") from error
    except client.ApiException as error:
        said = f"launch.engine=kubernetes: {function}: {error.status} {_message(error)}"
        if error.status == 404:
            raise NotFoundError(said) from error
        raise (TransientError if error.status >= 500 or error.status == 429 else ConfigError)(said) from error
    except HTTPError as error:
        raise TransientError(f"launch.engine=kubernetes: the API server does not answer: {error}") from error


def _message(error: Any) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(error.body)["message"])
    return str(error.reason)
