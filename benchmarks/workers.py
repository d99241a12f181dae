"""Wall time of a search on two workers against that on one, with jobs that mostly sleep.

Both workers run on this machine with folders and homes of their own and share only the services, as two machines would.
A job sleeps for five seconds in every step (the fault ``slow`` of models/training/supervision/faults.py), so that the
cores of this machine, which both workers share, do not decide.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import harness
from conf.schema import Services
from infra.services import deployments, prefect_api, stack

JOBS = 4  # two points of the grid, two seeds each
STEPS = 12  # of a job
WORDS = [
    "data.limit=600",
    "search.alpha=[1.2,1.4]",
    "search.beta=[1.1,1.2]",
    "search.gamma=[1.0,1.15]",
    "search.seeds=2",
    "search.recipe.epochs=2",
    "launch.engine=workpool",
    "launch.nproc_per_node=1",
]


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=1)
    report = harness.Report(options.n)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder, ExitStack() as workers:
        run_dir = Path(folder)
        addresses = stack.up(
            run_dir, Services(), jobs_at_once=1, say=lambda _: None, only=("s3", "prefect", "mlflow")
        ).addresses
        try:
            deployments.deploy(prefect_api.from_environment(os.environ), run_dir / "services", dict(os.environ))
            seconds = {}
            for count, name in enumerate(("one", "two"), start=1):
                workers.enter_context(_worker(run_dir / name, name))
                sides = [_search(run_dir / "flow", addresses, f"{name}-{turn}") for turn in range(options.n)]
                seconds[count] = report.add(f"{JOBS} jobs on {count} worker{'s' * (count > 1)}", sides, "s")
        finally:
            workers.close()
            stack.down(run_dir)
    report.ratios["two workers / one worker"] = seconds[2] / seconds[1]
    report.notes.append(f"a job sleeps {5 * STEPS} s; with the start of its processes and of the flow")
    report.notes.append(f"load average {os.getloadavg()[1]:.0f}")
    harness.show(report, options.json)


@contextmanager
def _worker(folder: Path, name: str) -> Iterator[None]:
    """A worker within the block, which begins when it takes jobs."""
    folder.mkdir()
    log = folder / "output.txt"
    argv = [sys.executable, "-m", "flows", "worker", "--name", name, "--gpus", "none"]
    with log.open("w") as output:
        worker = subprocess.Popen(
            argv, cwd=folder, env=_environment(folder) | {"FAULT": "step@0:1=slow!"}, stdout=output, stderr=output
        )
    try:
        while "takes jobs" not in log.read_text():
            if worker.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.2)
        yield
    finally:
        worker.terminate()
        worker.wait(120)


def _search(folder: Path, addresses: stack.Addresses, storage: str) -> float:
    """Seconds of a search whose jobs the running workers do."""
    folder.mkdir(exist_ok=True)
    services = [f"services.{name}={getattr(addresses, name)}" for name in ("s3", "prefect", "mlflow")]
    argv = [sys.executable, "-m", "flows", "search", *WORDS, *services, f"storage=s3://effnet/{storage}"]
    began = time.monotonic()
    done = subprocess.run(argv, cwd=folder, env=_environment(folder), capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(done.stderr)
    return seconds


def _environment(folder: Path) -> dict[str, str]:
    """That of another machine: the addresses and credentials of the services, and a home of its own."""
    kept = ("PREFECT_API_", "MLFLOW_TRACKING_", "AWS_", "PYTHONPATH", "PATH", "LANG")
    return {key: value for key, value in os.environ.items() if key.startswith(kept)} | {"HOME": str(folder)}


if __name__ == "__main__":
    main()
