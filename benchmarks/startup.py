"""From ``torchrun`` to the first step: a small job of ours on two processes, beside a bare script that only steps.

Ours loads its configuration and manifest from an S3 store, builds its network and state, looks for checkpoints to
resume, fetches a shard, decodes a batch, and steps. The bare script is what torch and torchrun take by themselves.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import harness
from conf import compose, schema
from infra import machine, store
from infra.launch.command import job_environment, torchrun_argv
from infra.services import stack
from models.data.shards import writer

PARTS = ("imports", "joining", "network", "checkpoint", "first batch", "first step")


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=5)
    report = harness.Report(options.n)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        run_dir = Path(folder)
        config = compose.compose(["profile=laptop", "data=digits", "recipe.epochs=1", f"run_dir={run_dir}"])
        stack.up(run_dir, config.services, jobs_at_once=1, say=lambda _: None, only=("s3",))
        try:
            _measure(config, run_dir, report)
        finally:
            stack.down(run_dir)
    harness.show(report, options.json)


def _measure(config: schema.Config, run_dir: Path, report: harness.Report) -> None:
    job = _job(config)
    ours: list[float] = []
    bare: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in ("torchrun itself", *PARTS)}
    for number in range(report.n + 1):
        first, taken = _ours(config, job, f"startup-{number}", run_dir)
        rival = _bare(config, run_dir)
        if number == 0:  # reads everything from the disk for the first time
            continue
        ours.append(first)
        bare.append(rival)
        for name, seconds in taken.items():
            parts[name].append(seconds)
    report.ratios["ours/bare"] = report.add("ours: launch to first step", ours, "s") / report.add("bare", bare, "s")
    for name, seconds_of in parts.items():
        report.add(f"of ours: {name}", seconds_of, "s")


def _job(config: schema.Config) -> schema.Job:
    """The digits, sharded, and the laptop's B0 on them for one epoch."""
    layout = writer.plan(config.data, config.storage)
    for numbers in writer.groups(layout, config.data.shards_per_task):
        writer.write_group(layout, numbers)
    sha256, _ = writer.write_manifest(layout)
    return schema.Job(
        kind="train",
        model=config.model,
        data_name=config.data.name,
        manifest_uri=f"{layout.root}/manifest.json",
        manifest_sha256=sha256,
        augment=config.data.augment,
        recipe=config.recipe,
        runtime=dataclasses.replace(config.runtime, loader_threads=1),
    )


def _ours(config: schema.Config, job: schema.Job, name: str, run_dir: Path) -> tuple[float, dict[str, float]]:
    """Seconds to the first step, and its parts on rank 0."""
    job_uri = store.join(config.storage, "jobs", name)
    store.write(store.join(job_uri, "config.yaml"), compose.to_yaml(job).encode())
    began = _run(config, torchrun_argv(config.launch, "models.train", job_uri), run_dir / name)
    status = store.read_json(store.join(job_uri, "status.json"))
    agent = status["process_began"] - began
    return agent + sum(status["startup"].values()), {"torchrun itself": agent, **status["startup"]}


def _bare(config: schema.Config, run_dir: Path) -> float:
    stamp = run_dir / "first-step"
    began = _run(config, torchrun_argv(config.launch, "benchmarks.rivals.bare_torchrun", str(stamp)), run_dir / "bare")
    return float(stamp.read_text()) - began


def _run(config: schema.Config, argv: list[str], cache: Path) -> float:
    """Runs a command to its end; the unix time at which it began."""
    environment = os.environ | job_environment(config.launch, machine.cores(), str(cache))
    began = time.time()
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    return began


if __name__ == "__main__":
    main()
