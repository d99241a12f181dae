"""The latency table as a task: one process that measures while no training of this server runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from prefect import task

from conf import compose, schema
from infra import store
from infra.errors import ConfigError, JobError
from infra.launch.command import job_environment
from infra.store.json_objects import check_object
from tasks import policy, slots
from tasks.report import results as report_results

ROOT = Path(__file__).parents[1]
# Table 4: seconds of one image on one core of a Xeon E5-2690, mean of 20 runs. It compares GPipe (19.0) with B7 (3.1).
PAPER_S = {"efficientnet_b1": 0.098, "resnet152": 0.554, "efficientnet_b7": 3.1}
PAPER_SPEEDUPS = {("efficientnet_b1", "resnet152"): 5.7}
# Table 2, percent.
PAPER_TOP1 = {
    "efficientnet_b1": 79.1,
    "resnet152": 77.8,
    "efficientnet_b4": 82.9,
    "legacy_senet154": 82.7,
    "efficientnet_b7": 84.3,
}


@task(task_run_name="latency", **policy.BOOKKEEPING)
async def measure_latency(config: schema.Config) -> dict[str, Any]:
    """Measures in a separate process and writes the report part; earlier measurements are never reused.

    Raises:
        ConfigError: Unknown network.
        JobError: The process died; the message ends with the last line of its output.
    """
    models = await asyncio.to_thread(networks, config.latency)
    settings = {key: getattr(config.latency, key) for key in ("n", "throughput_n", "throughput_batch")}
    request = {"models": {name: compose.to_dict(model) for name, model in models.items()}, **settings}
    async with slots.slot("latency"):  # a concurrent training would disturb the measurement
        times = await _measure(request)
    part = {
        **table(config.latency, times),
        "missing": ["GPipe, the paper's rival of B7: its network was never published; SENet-154 stands beside B4"],
        "command": f"effnet latency profile={config.profile}",
    }
    return await asyncio.to_thread(report_results.publish_part, config, "latency", part)


def networks(options: schema.Latency) -> dict[str, schema.Model]:
    """Each network of the pairs once, at the paper's size.

    Raises:
        ConfigError: Unknown network, or one with two resolutions.
    """
    from models.networks.build import build_model

    by_name: dict[str, schema.Model] = {}
    for pair in options.pairs:
        for name, px in ((pair.ours, None), (pair.rival, pair.rival_px)):
            default_px = build_model(schema.Model(name), 1, device="meta").resolution
            model = schema.Model(name, resolution=(px or default_px) / default_px)
            if by_name.setdefault(name, model) != model:
                raise ConfigError(f"latency.pairs: {name} at two resolutions; give it one")
    return by_name


async def _measure(request: dict[str, Any]) -> dict[str, Any]:
    # The environment of a job: malloc keeps freed memory, as in a long-running server.
    environment = job_environment(schema.Launch(), os.cpu_count() or 1, "")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "models.experiments.latency",
        json.dumps(request),
        cwd=ROOT,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        last = (err.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise JobError(f"the latency process ended with code {process.returncode}: {last}")
    return check_object(
        "output of models.experiments.latency", store.parse_json(out, "output of models.experiments.latency")
    )


def table(options: schema.Latency, times: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The measurements on one core, as in the paper, and on ``all_cores`` if the machine has more.

    Args:
        options: Options with the pairs.
        times: Output of ``models.experiments.latency.main``, by number of threads.
    """
    one, *more = [
        {"threads": int(threads), "n": options.n, **_build_rows(options, times[threads])}
        for threads in sorted(times, key=int)
    ]
    return {**one, "all_cores": more[0] if more else None, "batch_norm": "folded", "layout": "channels_last"}


def _build_rows(options: schema.Latency, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ms = {row["network"]: row["batch1_ms"] for row in rows}
    printed = [
        {**row, "paper_top1": PAPER_TOP1.get(row["network"]), "paper_latency_s": PAPER_S.get(row["network"])}
        for row in rows
    ]
    speedups = [
        {
            "ours": p.ours,
            "rival": p.rival,
            "measured": ms[p.rival] / ms[p.ours],
            "paper": PAPER_SPEEDUPS.get((p.ours, p.rival)),
        }
        for p in options.pairs
    ]
    return {"rows": printed, "speedups": speedups}
