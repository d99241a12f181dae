"""Workers as on machines of their own: folder, home, cache and programs; only the three services are shared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import owner_calls
from checkout import ROOT
from training_rig import Rig

from conf import compose, schema
from infra import store
from infra.launch import workpool
from infra.services import proctable, stack
from infra.services.stack import Addresses
from tasks.jobs import JobRun, name_job

SHARED = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3")
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
ONE_JOB = ("launch.nproc_per_node=2", "launch.jobs_at_once=1")  # of a worker: one job at a time, on two processes
PATIENCE_S = 300  # a machine with many other processes has taken 150


def until(what: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


class Machine:
    """A folder with everything that a worker has: home, working folder, run folder, programs."""

    def __init__(self, folder: Path, gpus: int = 0) -> None:
        self.folder, self.output = folder, folder / "output.txt"
        (folder / "bin").mkdir(parents=True)
        if gpus:  # what the worker reads of a machine with GPUs
            program = folder / "bin" / "nvidia-smi"
            program.write_text("#!/bin/sh\nseq 0 " + str(gpus - 1) + "\n")
            program.chmod(0o755)
        path = f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
        shared = {name: os.environ[name] for name in (*SHARED, *CREDENTIALS)}
        self.env = {**shared, "PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts ``effnet worker``."""
        argv = [sys.executable, "-m", "flows", "worker", *words]
        with self.output.open("w") as output:
            self.started = subprocess.Popen(
                argv, cwd=self.folder, env=self.env, stdout=output, stderr=subprocess.STDOUT, text=True
            )
        return self.started

    def processes(self) -> list[int]:
        """Of everything that runs on this machine."""
        home = f"HOME={self.folder}".encode()
        return [pid for pid in proctable.living() if home in proctable.environment(pid)]

    def wait_until_it_takes_jobs(self) -> None:
        until(lambda: "takes jobs" in self.output.read_text() or self.started.poll() is not None)
        assert self.started.poll() is None, self.output.read_text()

    def lose(self) -> None:
        """Kills all its processes without a warning, as a loss of power does."""
        while processes := self.processes():
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.started.wait()

    def close(self) -> None:
        if self.started.poll() is None:
            self.started.terminate()
            self.started.wait(90)


def set_up_pool(services: Addresses, services_dir: Path) -> None:
    """The server with our pool and deployments, and no embedded worker."""
    stack.down(services_dir, only=["worker"])
    argv = [sys.executable, "-m", "flows", "deploy", f"services.prefect={services.prefect}"]
    subprocess.run(argv, cwd=services_dir, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120)


# By default jobs of the laptop lock no GPU of a worker.
WORDS = ["profile=laptop", "launch.engine=workpool", "launch.device=auto", "launch.nproc_per_node=2"]
WORDS += ["launch.threads_per_proc=1"]


def described(rig: Rig, name: str, run_dir: Path) -> tuple[JobRun, schema.Config]:
    """A job of the rig under another name, for ``run_job``."""
    config = compose.compose([*WORDS, f"storage={rig.storage}", f"run_dir={run_dir}"])
    return name_job(config, rig.job, name, f"{name} of the rig"), config


def flow_runs(run: JobRun) -> list[str]:
    """States of the flow runs of a job, in the order of their creation."""
    query = {"flow_runs": {"tags": {"all_": [f"{workpool.TAG}:{run.key}"]}}}
    runs = owner_calls.prefect("POST", "/flow_runs/filter", query)[1]
    return [entry["state_type"] for entry in sorted(runs, key=lambda entry: entry["created"])]


def step(run: JobRun) -> int:
    """The last step that the trainer has reported, 0 before the first."""
    status = f"{run.job_uri}/status.json"
    return int(store.read_json(status).get("step", 0)) if store.exists(status) else 0
