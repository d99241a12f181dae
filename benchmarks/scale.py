"""One supervisor with many jobs that only report: its CPU and memory, and the load on Prefect, MLflow and the store.

The jobs are those of a search on a cluster: an engine like Slurm's is polled every five seconds, and instead of a
trainer one other process writes the objects of all run folders. Everything else is the real code and the embedded
services. With ``--engine workpool`` every job is a flow run as well, which no worker takes, and is polled at Prefect
every two seconds. ``--database postgresql://USER@HOST/NAME`` puts Prefect and MLflow on a PostgreSQL server (the
password is read from PGPASSWORD). Most times are CPU times, which other work on the machine stretches little;
docs/scale.md states the result.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks import harness
from conf import compose, schema
from infra import store
from infra.launch import workpool
from infra.launch.engine import ENGINES
from infra.launch.job import JobSpec
from infra.services import deployments, prefect_api, processes, stack

JOBS = 200
WATCHED_S = 120.0  # for which all jobs run at the same time
REPORT_S = (
    10.0  # between two reports of a job: a trainer's period is 1 s, which the store of this machine cannot keep up
)
STEPS = 440
_BUSY = 503
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class FakeJob:
    """A job that another process reports on, and its flow run if it has one."""

    done: Path
    real: Any = None
    adopted: bool = False
    queued: bool = False
    log: str = "none"


def main() -> None:
    """Runs the benchmark."""
    parser = harness.parser(__doc__ or "", n=1)
    parser.add_argument("--engine", choices=("slurm", "workpool"), default="slurm")
    parser.add_argument("--database", default="sqlite", help="services.database")
    options = parser.parse_args()
    report = harness.Report(options.n)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        run_dir = Path(folder)
        words = [f"run_dir={run_dir}", "data=digits", f"launch.engine={options.engine}"]
        config = compose.compose([*words, f"services.database={options.database}"])
        names = ("s3", "prefect", "mlflow")
        stack.up(run_dir, config.services, jobs_at_once=1, say=lambda _: None, only=names)
        if options.engine == "workpool":
            deployments.deploy(prefect_api.from_environment(os.environ), run_dir / "services", dict(os.environ))
        try:
            _measure(report, config, run_dir, names)
        finally:
            stack.down(run_dir)
    harness.show(report, options.json)


def _measure(report: harness.Report, config: schema.Config, run_dir: Path, services: Sequence[str]) -> None:
    from prefect import flow

    from tasks.jobs import JobRun
    from tasks.train import run_tracked

    runs = []
    for number in range(JOBS):
        job = schema.Job("train", config.model, "digits", "s3://effnet/none", "0", recipe=config.recipe)
        key = f"train-scale-{number}"
        runs.append(JobRun(job, key, f"{config.storage}/jobs/{key}", f"train {number}"))
    context = multiprocessing.get_context("spawn")
    reporter = context.Process(target=_report_jobs, args=([run.job_uri for run in runs], str(run_dir)))

    @flow(name="scale")
    async def search() -> dict[str, float]:
        watched = asyncio.create_task(_measure_steady(run_dir, pids))
        await asyncio.gather(*(run_tracked(run.label, run, config, "", {}) for run in runs))
        return await watched

    engine = config.launch.engine
    ENGINES[engine] = _fake_engine(run_dir, workpool if engine == "workpool" else None)
    busy = _count_busy_answers()
    folder = run_dir / "services"
    pids = {name: process.pid for name in services if (process := processes.running(folder, name))}
    pids["supervisor"] = os.getpid()
    wall_began, began, at_start = time.time(), time.monotonic(), {name: _cpu_s(pid) for name, pid in pids.items()}
    reporter.start()
    steady = asyncio.run(search())
    wall = time.monotonic() - began
    reporter.join()
    report.rows.append(harness.Row("jobs at once", JOBS, ""))
    times = [path.stat().st_mtime for path in run_dir.glob("*.started")]
    report.rows.append(harness.Row("from the start to the last submission", max(times) - wall_began, "s"))
    report.rows.append(harness.Row("from the first submission to the last", max(times) - min(times), "s"))
    report.rows.append(harness.Row("from the start to the last result", wall, "s"))
    report.rows.append(harness.Row("answers 503 of Prefect", len(busy), ""))
    for name, pid in pids.items():
        report.rows.append(harness.Row(f"{name}: while all jobs run", steady[name], "cores"))
        report.rows.append(harness.Row(f"{name}: from start to end", _cpu_s(pid) - at_start[name], "CPU s"))
        report.rows.append(harness.Row(f"{name}: memory at the end", _memory_gb(pid), "GB"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    report.rows.append(harness.Row("supervisor: peak memory", peak, "GB"))
    report.notes.append(f"all jobs run for {WATCHED_S:.0f} s and report every {REPORT_S:.0f} s")
    report.notes.append(f"load average {os.getloadavg()[1]:.0f}")


async def _measure_steady(run_dir: Path, pids: dict[str, int]) -> dict[str, float]:
    """Cores that every process takes while all jobs run."""
    while len(list(run_dir.glob("*.started"))) < JOBS:
        await asyncio.sleep(1.0)
    await asyncio.sleep(10.0)
    began, before = time.monotonic(), {name: _cpu_s(pid) for name, pid in pids.items()}
    await asyncio.sleep(WATCHED_S - 30.0)
    wall = time.monotonic() - began
    return {name: (_cpu_s(pid) - before[name]) / wall for name, pid in pids.items()}


def _fake_engine(run_dir: Path, real: ModuleType | None) -> Any:
    """An engine that notes what is submitted and polls like that of Slurm, or like ``real``, which gets every call."""

    def started(spec: JobSpec, job: Any) -> FakeJob:
        (run_dir / f"{spec.key}.started").touch()
        return FakeJob(run_dir / f"{spec.key}.done", job)

    def submit(spec: JobSpec) -> FakeJob:
        return started(spec, real.submit(spec) if real else None)

    def find(spec: JobSpec) -> FakeJob | None:  # a retry of the task meets the flow run of its first attempt
        job = real.find(spec) if real else None
        return started(spec, job) if job else None

    def poll(job: FakeJob) -> int | None:
        if real and real.poll(job.real) is not None:
            raise RuntimeError("another process ended a flow run of this benchmark")
        return 0 if job.done.exists() else None

    return SimpleNamespace(
        POLL_S=real.POLL_S if real else 5.0,
        LIMITED=False,
        find=find,
        submit=submit,
        poll=poll,
        logs=lambda _: "",
        cancel=lambda job: real.cancel(job.real) if real else None,
    )


def _count_busy_answers() -> list[str]:
    """Returns the list to which the path of every request of this process is added that is answered 503."""
    import httpx

    from infra.services import http

    busy: list[str] = []
    send, call = httpx.AsyncClient.send, http.call

    async def counted_send(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        response = await send(self, request, **options)
        if response.status_code == _BUSY:
            busy.append(request.url.path)
        return response

    def counted_call(
        method: str, url: str, body: Any = None, timeout_s: float = 5.0, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        status, answer = call(method, url, body, timeout_s, headers)
        if status == _BUSY:
            busy.append(url)
        return status, answer

    httpx.AsyncClient.send = counted_send  # type: ignore[method-assign]
    http.call = counted_call
    return busy


def _report_jobs(uris: list[str], folder: str) -> None:
    """Writes status and metrics of every submitted job, as a trainer does, and all results when all have run."""
    names = {uri: Path(folder) / uri.rpartition("/")[2] for uri in uris}
    all_started_at = math.inf
    with ThreadPoolExecutor(8) as threads:
        while (share := max(0.0, (time.monotonic() - all_started_at) / WATCHED_S)) < 1:
            began = time.monotonic()
            started = [uri for uri in uris if names[uri].with_suffix(".started").exists()]
            list(threads.map(_report, started, itertools.repeat(share)))
            if len(started) == len(uris) and all_started_at == math.inf:
                all_started_at = began
            time.sleep(max(0.0, began + REPORT_S - time.monotonic()))
        list(threads.map(_report, uris, itertools.repeat(1.0)))
    for name in names.values():
        name.with_suffix(".done").touch()


def _report(uri: str, share: float) -> None:
    step = min(STEPS, int(STEPS * share))
    status = {"epoch": 1, "epochs": 1, "step": step, "steps": STEPS, "loss": 1.0, "images_per_s": 10.0, "eta_s": 1.0}
    status |= {"minival_top1": 50.0, "time": time.time()}
    row = {"epoch": 1, "time": time.time(), "minival_top1": 50.0, "minival_loss": 1.0}
    rows = [{**row, "step": reached} for reached in range(0, step + 1, 40)]
    store.write(f"{uri}/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    if share >= 1:
        store.write_json(f"{uri}/result.json", {"top1": 50.0, "top5": 90.0, "minival_top1": 50.0, "n_minival": 100})
    store.write_json(f"{uri}/status.json", {**status, "state": "done" if share >= 1 else "running"})


def _family(pid: int) -> list[int]:
    """A service's process and its children; of this process, whose children are the services, only itself."""
    if pid == os.getpid():
        return [pid]
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return [pid, *(process for child in children for process in _family(child))]


def _cpu_s(pid: int) -> float:
    """User and system time of a process and its children, in seconds."""
    fields = [Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split() for process in _family(pid)]
    return sum(int(row[11]) + int(row[12]) for row in fields) / _TICKS


def _memory_gb(pid: int) -> float:
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in _family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


if __name__ == "__main__":
    main()
