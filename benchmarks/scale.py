"""One supervisor with many jobs that only report: its CPU and memory, and the load on Prefect, MLflow and the store.

The jobs are those of a search on a cluster: an engine like Slurm's is polled every five seconds, and instead of a
trainer one other process writes the objects of all run folders. Everything else is the real code and the embedded
services. The times are CPU times, which other work on the machine stretches little; docs/scale.md states the result.
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
from types import SimpleNamespace
from typing import Any

from benchmarks import harness
from conf import compose, schema
from infra import store
from infra.launch.engine import ENGINES
from infra.launch.job import JobSpec
from infra.services import processes, stack

JOBS = 200
WATCHED_S = 120.0  # for which all jobs run at the same time
REPORT_S = (
    10.0  # between two reports of a job: a trainer's period is 1 s, which the store of this machine cannot keep up
)
STEPS = 440
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class FakeJob:
    """A job that another process reports on."""

    done: Path
    adopted: bool = False
    queued: bool = False
    log: str = "none"


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=1)
    report = harness.Report(options.n)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        run_dir = Path(folder)
        config = compose.compose([f"run_dir={run_dir}", "data=digits", "launch.engine=slurm"])
        names = ("s3", "prefect", "mlflow")
        stack.up(run_dir, config.services, jobs_at_once=1, say=lambda _: None, only=names)
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

    ENGINES["slurm"] = _fake_engine(run_dir)
    folder = run_dir / "services"
    pids = {name: process.pid for name in services if (process := processes.running(folder, name))}
    pids["supervisor"] = os.getpid()
    began, at_start = time.monotonic(), {name: _cpu_s(pid) for name, pid in pids.items()}
    reporter.start()
    steady = asyncio.run(search())
    wall = time.monotonic() - began
    reporter.join()
    report.rows.append(harness.Row("jobs at once", JOBS, ""))
    report.rows.append(harness.Row("from the first submission to the last result", wall, "s"))
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


def _fake_engine(run_dir: Path) -> Any:
    """An engine that notes what is submitted and polls like that of Slurm."""

    def submit(spec: JobSpec) -> FakeJob:
        (run_dir / f"{spec.key}.started").touch()
        return FakeJob(run_dir / f"{spec.key}.done")

    return SimpleNamespace(
        POLL_S=5.0,
        LIMITED=False,
        find=lambda _: None,
        submit=submit,
        poll=lambda job: 0 if job.done.exists() else None,
        logs=lambda _: "",
        cancel=lambda _: None,
    )


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
