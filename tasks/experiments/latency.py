"""The latency table as a task: one process that measures while no training of this server runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import task

from conf import compose, schema
from infra import machine, store
from infra.environment import JOBS, inherited
from infra.errors import JobError
from infra.launch.command import job_environment
from infra.store.json_objects import check_object
from models.results import LatencyResult, LatencyTiming, result_from
from tasks import policy, slots
from tasks.report import results as report_results

ROOT = Path(__file__).parents[2]


@task(task_run_name="latency", **policy.BOOKKEEPING)
async def measure_latency(config: schema.Config) -> LatencyResult:
    """Measures in a separate process and writes the report part; earlier measurements are never reused.

    Raises:
        ConfigError: Unknown network.
        JobError: The process died; the message ends with the last line of its output.
    """
    from models.experiments.latency import list_networks

    models = await asyncio.to_thread(list_networks, config.latency)
    settings = {key: getattr(config.latency, key) for key in ("n", "throughput_n", "throughput_batch")}
    request = {"models": {name: compose.to_dict(model) for name, model in models.items()}, **settings}
    async with slots.slot("latency", await slots.limit()):  # a concurrent training would disturb the measurement
        timings = await _measure(request)
    return await asyncio.to_thread(_record, config, timings)


def _record(config: schema.Config, timings: Mapping[int, Sequence[LatencyTiming]]) -> LatencyResult:
    from models.experiments.latency import tabulate

    result = replace(
        tabulate(config.latency, timings),
        missing=("GPipe, the paper's rival of B7: its network was never published, so B7 is measured alone",),
        command=f"effnet latency profile={config.profile}",
    )
    report_results.publish_part(config, "latency", result)
    return result


async def _measure(request: dict[str, Any]) -> dict[int, list[LatencyTiming]]:
    # The environment of a job: malloc keeps freed memory, as in a long-running server.
    environment = job_environment(schema.Launch(), machine.cores(), "")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "models.experiments.latency",
        json.dumps(request),
        cwd=ROOT,
        env=inherited(os.environ, JOBS) | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = (err.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise JobError(f"the latency process ended with code {process.returncode}: {last}")
    where = "output of models.experiments.latency"
    rows = check_object(where, store.parse_json(out, where))
    return {int(threads): [result_from(LatencyTiming, row, where) for row in rows[threads]] for threads in rows}
