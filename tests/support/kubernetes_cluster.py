"""A stand-in for a Kubernetes cluster: the part of the API that effnet uses, and a kubelet that starts processes.

It is no Kubernetes. Manifests are checked strictly against the official schemas, names are refused twice with 409, pods
of an Indexed Job are started, restarted and ended by backoffLimit and podFailurePolicy. But a pod is the container's
command as a process of this machine, without image, isolation and network: the image is this checkout, an emptyDir is a
folder, and the name of the pod with index 0 is 127.0.0.1.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import kubernetes_validate
import yaml
from checkout import ROOT

VERSION = "1.37"
IMAGE = "effnet:test"  # the only one that can be pulled
PORT = "29500"
UNSCHEDULABLE = "Unschedulable"  # the only node has no GPU


@dataclass
class Pod:
    """A process, or what keeps it from starting."""

    name: str
    index: int
    log: Path
    process: subprocess.Popen[bytes] | None
    waiting: str = ""

    def code(self) -> int | None:
        """Exit code as a container has it; None while it runs or waits."""
        code = self.process.poll() if self.process is not None else None
        return 128 - code if code is not None and code < 0 else code

    def to_json(self, job: str) -> dict[str, Any]:
        code = self.code()
        if self.waiting == UNSCHEDULABLE:
            message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            condition = {"type": "PodScheduled", "status": "False", "reason": UNSCHEDULABLE, "message": message}
            return {"metadata": {"name": self.name}, "status": {"phase": "Pending", "conditions": [condition]}}
        phase = "Pending" if self.waiting else "Running" if code is None else "Failed" if code else "Succeeded"
        waiting = {"waiting": {"reason": self.waiting, "message": f"stand-in: {self.waiting}"}}
        state = waiting if self.waiting else {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        labels = {"batch.kubernetes.io/job-name": job}
        status = {"phase": phase, "containerStatuses": [{"name": "trainer", "image": IMAGE, "state": state}]}
        stamp = f"2026-01-01T00:00:{int(self.name.rpartition('-')[2]):05}Z"  # only its order counts
        return {"metadata": {"name": self.name, "labels": labels, "creationTimestamp": stamp}, "status": status}

    def end(self, number: int) -> None:
        """Sends a signal to the process and to its group."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


@dataclass
class Cluster:
    """Jobs, services and pods by name; ``secrets`` are the Secrets, ``room`` the pods that the node holds."""

    folder: Path
    secrets: dict[str, dict[str, str]]
    room: int = 100
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, list[Pod]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: Any = field(default_factory=itertools.count)

    def start(self) -> Path:
        """Starts the API server; returns the address of a kubeconfig that leads to it."""
        handler = type("Handler", (_Handler,), {"cluster": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        (path := self.folder / "kubeconfig").write_text(yaml.safe_dump(configuration))
        return path

    def stop(self) -> None:
        """Ends the server and all pods."""
        self.server.shutdown()
        self.server.server_close()
        for name in list(self.jobs):
            self.delete_job(name)
        deadline = time.monotonic() + 60
        while self.jobs and time.monotonic() < deadline:
            time.sleep(0.1)

    def create(self, kind: str, body: dict[str, Any], *, dry_run: bool) -> tuple[int, dict[str, Any]]:
        """Answers POST."""
        with self.lock:
            if kind == "jobs":  # Prefect's worker requires these two, of which a server that is not strict warns
                for field_of_a_job in ("parallelism", "completions"):
                    body["spec"]["template"]["spec"].pop(field_of_a_job, None)
            try:
                kubernetes_validate.validate(body, VERSION, strict=True)
            except kubernetes_validate.ValidationError as error:
                return 422, {"message": error.message}
            if dry_run:
                return 201, body
            known = self.jobs if kind == "jobs" else self.services
            name = body["metadata"].setdefault("name", f"{body['metadata'].get('generateName')}{next(self.numbers)}")
            if name in known:
                return 409, {"message": f"{kind} {name} already exists"}
            body["metadata"]["uid"] = f"uid-{next(self.numbers)}"
            known[name] = {**body, "status": {}}
            if kind == "jobs":
                self.pods[name] = []
                threading.Thread(target=self._run_job, args=(name,), daemon=True).start()
            return 201, known[name]

    def delete_job(self, name: str) -> tuple[int, dict[str, Any]]:
        """Marks a Job as being deleted; it is gone when its pods are."""
        with self.lock:
            if name not in self.jobs:
                return 404, {"message": f"jobs {name} not found"}
            self.jobs[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return 200, self.jobs[name]

    def kill_pod(self, job: str, index: int) -> None:
        """Kills the processes of the running pod with this index, as a lost node does."""
        pod = next(pod for pod in self.pods[job] if pod.index == index and pod.code() is None)
        pod.end(signal.SIGKILL)

    def _run_job(self, name: str) -> None:
        """The Job controller: keeps one pod per index running, until all have succeeded or the Job has failed."""
        job = self.jobs[name]
        port = _free_port()
        while "deletionTimestamp" not in job["metadata"]:
            with self.lock:
                pods = self.pods[name]
                verdict = self._judge(job, pods)
                ready = sum(pod.code() is None and not pod.waiting for pod in pods)
                job["status"] = {"ready": ready, "succeeded": sum(pod.code() == 0 for pod in pods)}
                if ready < self.room:  # the node has been enlarged
                    pods[:] = [pod for pod in pods if pod.waiting != UNSCHEDULABLE]
                if verdict:
                    self._end_pods(pods)
                    job["status"] = {"conditions": [{"type": verdict, "status": "True"}]}
                    break
                for index in range(job["spec"].get("completions", 1)):
                    if not any(pod.index == index and pod.code() in (None, 0) for pod in pods):
                        pods.append(self._start_pod(job, index, port))
            time.sleep(0.1)
        while "deletionTimestamp" not in job["metadata"]:
            time.sleep(0.1)
        self._end_pods(self.pods[name])
        with self.lock:
            uid = job["metadata"]["uid"]
            for service, body in list(self.services.items()):
                if any(owner["uid"] == uid for owner in body["metadata"].get("ownerReferences", [])):
                    del self.services[service]
            del self.jobs[name], self.pods[name]

    def _judge(self, job: dict[str, Any], pods: list[Pod]) -> str:
        """The condition that ends the Job, or nothing."""
        codes = [code for pod in pods if (code := pod.code())]
        rules = job["spec"].get("podFailurePolicy", {"rules": []})["rules"]
        fatal = {code for rule in rules if rule["action"] == "FailJob" for code in rule["onExitCodes"]["values"]}
        if set(codes) & fatal or len(codes) > job["spec"]["backoffLimit"]:
            return "Failed"
        succeeded = {pod.index for pod in pods if pod.code() == 0}
        return "Complete" if len(succeeded) == job["spec"].get("completions", 1) else ""

    def _end_pods(self, pods: list[Pod]) -> None:
        for pod in pods:
            pod.end(signal.SIGTERM)
        for pod in pods:
            if pod.process is not None:
                pod.process.wait(60)

    def _start_pod(self, job: dict[str, Any], index: int, port: int) -> Pod:
        name = job["metadata"]["name"]
        pod_name = f"{name}-{index}-{next(self.numbers)}"
        (folder := self.folder / pod_name).mkdir()
        [container] = job["spec"]["template"]["spec"]["containers"]
        secrets = [source["secretRef"]["name"] for source in container["envFrom"]]
        running = sum(pod.process is not None and pod.code() is None for pods in self.pods.values() for pod in pods)
        if "nvidia.com/gpu" in container["resources"].get("requests", {}) or running >= self.room:
            return Pod(pod_name, index, folder / "log", None, UNSCHEDULABLE)
        if container["image"] != IMAGE:
            return Pod(pod_name, index, folder / "log", None, "ImagePullBackOff")
        if set(secrets) - set(self.secrets):
            return Pod(pod_name, index, folder / "log", None, "CreateContainerConfigError")
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        for secret in secrets:
            environment |= self.secrets[secret]
        for variable in container["env"]:
            value = variable["value"].replace(f"{name}-0.{name}:{PORT}", f"127.0.0.1:{port}")
            environment[variable["name"]] = re.sub(r"(^|(?<==))/scratch", str(folder), value)
        program, *words = container.get("command") or container["args"]
        words = words if program == "python" else ["-m", program, *words]  # prefect flow-run execute
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *words], env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        return Pod(pod_name, index, folder / "log", process)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:
        kind, name, rest = self._place()
        query, cluster = parse_qs(urlparse(self.path).query), self.cluster
        with cluster.lock:
            if kind == "jobs":
                job = cluster.jobs.get(name)
                self._answer(*((200, job) if job else (404, {"message": name})))
            elif rest == "log":
                [pod] = [pod for pods in cluster.pods.values() for pod in pods if pod.name == name]
                self._send(200, pod.log.read_bytes() if pod.log.exists() else b"", "text/plain")
            else:
                job_name = query["labelSelector"][0].partition("=")[2]
                self._answer(200, {"items": [pod.to_json(job_name) for pod in cluster.pods.get(job_name, [])]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        address = urlparse(self.path)
        if (namespace := address.path.partition("/namespaces/")[2].partition("/")[0]) != "default":
            return self._answer(404, {"message": f'namespaces "{namespace}" not found'})
        dry_run = "dryRun=All" in address.query.split("&")
        return self._answer(*self.cluster.create(self._place()[0], body, dry_run=dry_run))

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(*self.cluster.delete_job(self._place()[1]))

    def _place(self) -> tuple[str, str, str]:
        """Kind, name and what follows it of the path."""
        words = urlparse(self.path).path.partition("/namespaces/default/")[2].split("/")
        kind, name, rest = (*words, "", "")[:3]
        return kind, name, rest

    def _answer(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""
