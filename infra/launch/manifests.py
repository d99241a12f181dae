"""The manifests of a job on Kubernetes, as plain values; nothing here calls a cluster.

Credentials are never part of them, only the names of Secrets.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

from conf import schema
from infra import machine
from infra.errors import PermanentError
from infra.launch.command import JOB_FOLDER, RESOLVE_S, TOKEN_URI, TRAINING_CODE, job_environment, torchrun_argv
from infra.launch.job import JobSpec
from infra.launch.local import token_uri

GRACE_S = 60  # between SIGTERM and SIGKILL of a pod: the job first saves its state
CONTAINER = "trainer"
LABELS = {"app.kubernetes.io/name": "effnet"}
JOB_LABEL = "batch.kubernetes.io/job-name"  # Kubernetes gives it to the pods of a Job
SCRATCH = "/scratch"  # the only folders that can be written: an emptyDir here, at /tmp and at /dev/shm
_PORT = 29500
_USER = 1000
_PASSED_ON = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")  # no credentials: these come from Secrets


def permanent_codes() -> list[int]:
    """Exit codes of errors that a retry cannot fix; the Job then fails instead of starting its pods again."""
    return sorted({kind.exit_code for kind in PermanentError.__subclasses__()})


def manifests(spec: JobSpec) -> list[dict[str, Any]]:
    """Returns the Job, preceded by its headless Service if it has several pods."""
    launch, name = spec.launch, job_name(spec)
    settings = launch.kubernetes
    metadata = {"name": name, "namespace": settings.namespace, "labels": LABELS}
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
        "template": {
            "metadata": {"labels": dict(LABELS)},
            "spec": {**_pod(launch, _trainer(spec)), "subdomain": job_name(spec)},
        },
        **_suspension(launch),
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "labels": _labels(launch), "annotations": {"effnet/job-uri": spec.job_uri}},
        "spec": job_spec,
    }
    selector = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {JOB_LABEL: name}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": selector}
    return [service, job] if launch.nnodes > 1 else [job]


def pool_template(launch: schema.Launch, variables: Mapping[str, str]) -> dict[str, Any]:
    """Returns the job template of a Prefect work pool of type kubernetes, each of whose flow runs is a pod for one job.

    The caller of a flow run can choose nothing. Prefect's worker adds the command, its own variables and labels. It
    requires the container's name, and in the pod two fields of a Job, which Kubernetes ignores.

    Args:
        launch: Resources and settings of the pods.
        variables: Variables of the flow run, without credentials.
    """
    settings = launch.kubernetes
    container = {"name": "prefect-job", **_container(launch, {"HOME": SCRATCH, **variables})}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"namespace": settings.namespace, "labels": _labels(launch)},
        "spec": {
            "backoffLimit": 0,  # Prefect schedules the flow run of an evicted pod again
            "ttlSecondsAfterFinished": settings.ttl_s,
            "template": {
                "metadata": {"labels": dict(LABELS)},
                "spec": {**_pod(launch, container), "parallelism": 1, "completions": 1},
            },
            **_suspension(launch),
        },
    }
    return {
        "job_configuration": {"namespace": settings.namespace, "job_manifest": manifest},
        "variables": {"type": "object", "properties": {}, "additionalProperties": False},
    }


def _labels(launch: schema.Launch) -> dict[str, str]:
    queue = launch.kubernetes.queue
    return LABELS | ({"kueue.x-k8s.io/queue-name": queue} if queue is not None else {})


def _suspension(launch: schema.Launch) -> dict[str, bool]:
    return {"suspend": True} if launch.kubernetes.queue is not None else {}  # until Kueue admits it


def job_name(spec: JobSpec) -> str:
    """``effnet-KEY-DIGEST`` as a DNS label; the digest is that of the run folder's address."""
    words = re.sub(r"[^a-z0-9]+", "-", spec.key.lower()).strip("-")
    return f"effnet-{words[:36].rstrip('-')}-{hashlib.sha256(spec.job_uri.encode()).hexdigest()[:8]}"


def _pod(launch: schema.Launch, container: dict[str, Any]) -> dict[str, Any]:
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
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": shared_memory},
        ],
    }


def _trainer(spec: JobSpec) -> dict[str, Any]:
    command = torchrun_argv(spec.launch, spec.module, spec.job_uri, "python")
    return {"name": CONTAINER, "command": command, **_container(spec.launch, _variables(spec))}


def _container(launch: schema.Launch, variables: Mapping[str, str]) -> dict[str, Any]:
    settings = launch.kubernetes
    resources = {
        "cpu": launch.cpus_per_node,
        "memory": f"{launch.memory_gb}Gi" if launch.memory_gb else None,
        settings.gpu_resource: launch.gpus_per_node,
    }
    amounts = {name: str(amount) for name, amount in resources.items() if amount}
    environment = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    return {
        "image": settings.image,
        "workingDir": SCRATCH,
        "env": [{"name": name, "value": value} for name, value in {**environment, **variables}.items()],
        "envFrom": [{"secretRef": {"name": name}} for name in settings.secrets],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the pod
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }


def _variables(spec: JobSpec) -> dict[str, str]:
    cores = spec.launch.cpus_per_node or spec.launch.nproc_per_node
    variables = job_environment(spec.launch, cores, f"{SCRATCH}/cache") | {
        JOB_FOLDER: SCRATCH,
        "HOME": SCRATCH,
        TRAINING_CODE: machine.training_code(),
    }
    variables.pop("PYTHONPATH", None)  # of this machine; the image has effnet installed
    if spec.launch.nnodes > 1:
        name = job_name(spec)
        variables |= {
            "PET_RDZV_ENDPOINT": f"{name}-0.{name}:{_PORT}",  # torchrun's --rdzv-endpoint
            TOKEN_URI: token_uri(spec.job_uri),
            # A Service resolves a pod only some time after its start, which a new node may delay. As long as torchrun
            # waits for the others.
            RESOLVE_S: "600",
        }
    return variables


def _toleration(text: str) -> dict[str, str]:
    """``KEY[=VALUE][:EFFECT]``, as kubectl writes a taint."""
    key, _, effect = text.partition(":")
    key, equals, value = key.partition("=")
    matched = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
    return {"key": key, **matched, **({"effect": effect} if effect else {})}
