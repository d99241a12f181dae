"""What the orchestration costs: one variant through ``effnet train`` and through bare torchrun, in turn.

Both train the same configuration with the same seed from the same shards in the same object store, each into
a run folder of its own. Services run before the clock starts, for both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness
from conf import compose, schema
from infra import machine, store
from infra.launch.command import job_environment, torchrun_argv
from infra.services import stack

OVERRIDES = ["model=b0", "recipe.epochs=30"]  # about a minute on two cores


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=3)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        run_dir = Path(folder)
        config = compose.compose([*OVERRIDES, f"run_dir={run_dir}"])
        stack.up(run_dir, config.services, jobs_at_once=1, say=lambda _: None)
        try:
            _effnet(run_dir, ["shard"])  # both sides find the shards
            harness.show(_measure(config, run_dir, options.n), options.json)
        finally:
            stack.down(run_dir)


def _measure(config: schema.Config, run_dir: Path, n: int) -> harness.Report:
    flow, bare, inside = [], [], []
    for seed in range(1, n + 1):
        began = time.perf_counter()
        _effnet(run_dir, ["train", *OVERRIDES, f"recipe.seed={seed}"])
        flow.append(time.perf_counter() - began)
        job_uri, minutes = _newest_job(config)
        inside.append(60 * minutes)
        bare.append(_bare_torchrun(config, job_uri, run_dir))
    report = harness.Report(n)
    through_flow, through_torchrun = (report.add("effnet train", flow, "s"), report.add("bare torchrun", bare, "s"))
    supervised = report.add("of it: the supervised torchrun job", inside, "s")
    imports = report.add("of it: importing the flow", [_import_seconds("flows.train") for _ in range(n)], "s")
    tracking = report.add("of it: importing MLflow", [_import_seconds("mlflow") for _ in range(n)], "s")
    rest = through_flow - supervised - imports - tracking
    report.rows.append(harness.Row("of it: the rest (Prefect, MLflow and S3 calls)", rest, "s"))
    report.ratios["flow/torchrun"] = through_flow / through_torchrun
    return report


def _effnet(run_dir: Path, words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "flows", *words, f"run_dir={run_dir}"], check=True, capture_output=True)


def _newest_job(config: schema.Config) -> tuple[str, float]:
    """The run folder of the job that the flow ran last, and its minutes."""
    results = [u for u in store.list_uris(store.join(config.storage, "jobs")) if u.endswith("/result.json")]
    seen = {uri: store.read_json(uri) for uri in results if "/bare-" not in uri}
    newest = max(seen, key=lambda uri: store.read_json(uri.replace("result.json", "status.json"))["time"])
    return newest.removesuffix("/result.json"), float(seen[newest]["minutes"])


def _bare_torchrun(config: schema.Config, job_uri: str, run_dir: Path) -> float:
    """The same job description, started as a person would start it by hand."""
    twin = store.join(config.storage, "jobs", f"bare-{job_uri.rpartition('-')[2]}")
    store.write(store.join(twin, "config.yaml"), store.read(store.join(job_uri, "config.yaml")))
    environment = os.environ | job_environment(config.launch, machine.cores(), str(run_dir / "cache"))
    began = time.perf_counter()
    subprocess.run(torchrun_argv(config.launch, "models.train", twin), env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def _import_seconds(module: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
