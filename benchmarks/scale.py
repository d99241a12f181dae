"""One supervisor with many jobs that only report: its CPU and memory, and the load on Prefect, MLflow and the store.

The jobs are those of a search on a cluster: an engine like Slurm's is polled every five seconds, and instead of a
trainer one other process writes the objects of all run folders. Everything else is the real code and the embedded
services. The times are CPU times, which other work on the machine stretches little; docs/scale.md states the result.
"""

from __future__ import annotations

import asyncio
import json
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
JOB_S = 120.0  # from the submission of a job to its result
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
    async def search() -> int:
        return len(await asyncio.gather(*(run_tracked(run.label, run, config, "", {}) for run in runs)))

    ENGINES["slurm"] = _fake_engine(run_dir)
    folder = run_dir / "services"
    pids = {name: process.pid for name in services if (process := processes.running(folder, name))}
    before, own = {name: _cpu_s(pid) for name, pid in pids.items()}, _own_cpu_s()
    began = time.monotonic()
    reporter.start()
    finished = asyncio.run(search())  # type: ignore[arg-type]
    wall = time.monotonic() - began
    reporter.join()
    assert finished == JOBS
    supervisor = _own_cpu_s() - own
    report.rows += [
        harness.Row("jobs at once", JOBS, ""),
        harness.Row("from the first submission to the last result", wall, "s"),
        harness.Row("supervisor: CPU", supervisor, "s"),
        harness.Row("supervisor: CPU / time", supervisor / wall, "cores"),
        harness.Row("supervisor: peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "GB"),
    ]
    for name, pid in pids.items():
        report.rows.append(harness.Row(f"{name}: CPU", _cpu_s(pid) - before[name], "s"))
        report.rows.append(harness.Row(f"{name}: memory", _memory_gb(pid), "GB"))
    report.notes.append(
        f"jobs of {JOB_S:.0f} s that report every {REPORT_S:.0f} s; load average {os.getloadavg()[1]:.0f}"
    )


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
    """Writes status, metrics and result of every submitted job, as a trainer does; ends when all have ended."""
    started: dict[str, float] = {}
    ended: set[str] = set()
    with ThreadPoolExecutor(8) as threads:
        while len(ended) < len(uris):
            round_began = time.monotonic()
            for uri in uris:
                if uri not in started and (Path(folder) / f"{uri.rpartition('/')[2]}.started").exists():
                    started[uri] = round_began
            live = [uri for uri in started if uri not in ended]
            list(threads.map(lambda uri: _report(uri, (round_began - started[uri]) / JOB_S), live))
            for uri in live:
                if round_began - started[uri] >= JOB_S:
                    ended.add(uri)
                    (Path(folder) / f"{uri.rpartition('/')[2]}.done").touch()
            time.sleep(max(0.0, round_began + REPORT_S - time.monotonic()))


def _report(uri: str, share: float) -> None:
    step = min(STEPS, int(STEPS * share))
    status = {"epoch": 1, "epochs": 1, "step": step, "steps": STEPS, "loss": 1.0, "images_per_s": 10.0, "eta_s": 1.0}
    status |= {"minival_top1": 50.0, "time": time.time()}
    row = {"epoch": 1, "step": step, "time": time.time(), "minival_top1": 50.0, "minival_loss": 1.0}
    store.write(
        f"{uri}/metrics.jsonl", "".join(json.dumps({**row, "step": s}) + "\n" for s in range(0, step + 1, 40)).encode()
    )
    if share >= 1:
        store.write_json(f"{uri}/result.json", {"top1": 50.0, "top5": 90.0, "minival_top1": 50.0, "n_minival": 100})
    store.write_json(f"{uri}/status.json", {**status, "state": "done" if share >= 1 else "running"})


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _family(pid: int) -> list[int]:
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
