"""A worker of a Prefect work pool on this machine, as ``effnet worker`` runs it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from infra import machine
from infra.errors import ConfigError
from infra.services import deployments, processes
from infra.services.prefect_api import PrefectApi, request
from infra.services.processes import Program
from infra.services.programs import FLOW_LOGS
from infra.store import files

NAME = "worker"  # of its process in the folder
_SAVE_S = 60.0  # a job saves its state within 20 s and is killed after 45


def check(api: PrefectApi, pool: str) -> None:
    """Checks that the server has the work pool and the deployment of jobs.

    Raises:
        ConfigError: It refuses the credentials, or has not been set up.
        TransientError: It does not answer.
    """
    for kind, name, path in (
        ("work pool", pool, f"/work_pools/{pool}"),
        ("deployment", "job/job", "/deployments/name/job/job"),
    ):
        status, _ = request(api, "GET", path, known=(404,))
        if status == 404:
            raise ConfigError(f"Prefect at {api.url} has no {kind} {name}; set it up by `effnet deploy`")


def start(folder: Path, name: str, pool: str, jobs: int | None, environment: Mapping[str, str]) -> None:
    """Starts the worker.

    Args:
        folder: Its folder on this machine, for its log and Prefect's files.
        name: Its name in Prefect.
        pool: Work pool.
        jobs: Number of concurrent jobs; None to take whole flows instead, without a limit, because most of them wait.
        environment: Variables of its flow runs beside those of this process.

    Raises:
        ConfigError: A worker runs in this folder already.
    """
    if processes.running(folder, NAME) is not None:
        raise ConfigError(f"a worker runs in {folder} already; give another run_dir=PATH")
    files.make_private(folder)
    queue = ["--work-queue", deployments.JOBS_QUEUE, "--limit", str(jobs)] if jobs else ["--work-queue", "default"]
    argv = (sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool, "--name", name)
    settings = {
        **environment,
        **machine.import_path(),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        **FLOW_LOGS,
    }
    inherited = {key: value for key, value in os.environ.items() if key != "PREFECT_PROFILE"}
    processes.start(folder, Program(NAME, (*argv, *queue), {**inherited, **settings}, folder / "work"))


def stop(folder: Path) -> None:
    """Ends the worker: its jobs save their state, and another worker resumes them.

    A worker that is merely terminated kills its flow runs before their jobs have saved. It is therefore suspended, so
    that it takes no other job, until the flow runs have ended.
    """
    worker = processes.running(folder, NAME)
    if worker is not None:
        os.kill(worker.pid, signal.SIGSTOP)
        deadline = time.monotonic() + _SAVE_S
        terminated: set[int] = set()
        while (runs := processes.flow_runs(folder, NAME)) and time.monotonic() < deadline:
            for pid in set(runs) - terminated:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            terminated |= set(runs)
            time.sleep(0.2)
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
    processes.stop(folder, [NAME])
