"""Inference on the CPU, batch 1: B1 beside ResNet-152, B4 beside SENet-154, and B7 (paper Table 4), all in turns.

Each network twice: as it is trained, and as it would serve, with batch norm folded into the convolutions. Random
weights, batch-norm statistics of the activations, float32, channels_last, inference_mode; one thread, then all cores.
The paper's rival of B7, GPipe, was never published. SENet-154 at 320 px is what Table 2 sets beside B4 at its accuracy.
The shares are of the operators' own time in one profiled run of a network on one thread.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import harness
from conf import schema
from infra import machine
from infra.launch.command import job_environment
from models.experiments.latency import deployed, list_networks, runner, settle_batch_norm, time_in_turns

SHARES = 5  # of the slowest operators


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=20)
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # as benchmarks.step: malloc reads it once, at the start
        wanted = job_environment(schema.Launch(), machine.cores(), "")
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.latency", *sys.argv[1:]], os.environ | wanted)  # noqa: S606
    report = harness.Report(options.n)
    latency = schema.Latency()
    models = list_networks(latency)
    sides: dict[str, tuple[nn.Module, int]] = {}
    for name, model in models.items():
        plain = settle_batch_norm(model)
        side = int(plain.resolution)  # type: ignore[arg-type]
        sides[f"{name} {side} px"] = plain.to(memory_format=torch.channels_last), side  # type: ignore[call-overload]
        sides[f"{name} {side} px, folded"] = deployed(model), side
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            times = time_in_turns(
                {name: runner(network, 1, side) for name, (network, side) in sides.items()}, options.n
            )
        ms = {
            name: report.add(f"{name}, {threads} threads", [1000 * t for t in each], "ms")
            for name, each in times.items()
        }
        for pair in (pair for pair in latency.pairs if pair.rival is not None):
            for how in ("", ", folded"):
                ours, rival = (
                    next(k for k in ms if k.startswith(f"{name} ") and k.endswith(f"px{how}"))
                    for name in (pair.ours, pair.rival)
                )
                report.ratios[f"{pair.rival}/{pair.ours}{how}, {threads} threads"] = ms[rival] / ms[ours]
    _profile(sides, report)
    report.notes.append(f"torch {torch.__version__}; Table 4 has 5.7 for ResNet-152 over B1 on one core")
    harness.show(report, options.json)


def _profile(sides: dict[str, tuple[nn.Module, int]], report: harness.Report) -> None:
    torch.set_num_threads(1)
    for name, (network, side) in sides.items():
        if not name.startswith("efficientnet"):
            continue
        run = runner(network, 1, side)
        with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as found:
            run()
        events = found.key_averages()
        total = sum(event.self_cpu_time_total for event in events)
        for event in sorted(events, key=lambda e: -e.self_cpu_time_total)[:SHARES]:
            report.add(f"{name}: {event.key}", [100 * event.self_cpu_time_total / total], "%")


if __name__ == "__main__":
    main()
