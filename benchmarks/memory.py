"""What ``effnet plan`` says of a step's memory, beside the most that such a step takes of this machine."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks import harness
from conf import schema
from infra import machine
from infra.launch.command import job_environment
from models.networks import memory, native
from models.networks.build import build_model
from models.training.checkpoints.state import initial_state

CLASSES = 1000
GB = 1e9


@dataclass(frozen=True)
class Case:
    """One step: a network at a share of its resolution, with so many images at once."""

    name: str
    network: str
    resolution: float
    images: int
    recompute: bool = False


CASES = (
    Case("B0 224 px, 32 images", "efficientnet_b0", 1.0, 32),
    Case("B0 224 px, 32 images, recomputed", "efficientnet_b0", 1.0, 32, recompute=True),
    Case("B3 210 px, 16 images", "efficientnet_b3", 0.7, 16),
)


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=3)
    report = harness.Report(options.n)
    os.environ |= job_environment(schema.Launch(), machine.cores(), "")  # how malloc keeps memory is a job's too
    spawned = multiprocessing.get_context("spawn")
    for case in CASES:
        found = []
        for _ in range(options.n):
            with spawned.Pool(1) as pool:  # a process each: memory that was given back would be counted as free
                found.append(pool.apply(measured, (case,)))
        planned = report.add(f"{case.name}: planned", [_planned(case)], "GB")
        report.ratios[f"planned/measured, {case.name}"] = planned / report.add(f"{case.name}: measured", found, "GB")
    harness.show(report, options.json)


def _asked(case: Case) -> tuple[schema.Model, schema.Recipe]:
    model = schema.Model(name=case.network, resolution=case.resolution)
    return model, schema.Recipe(global_batch=case.images, batch_slices=1, recompute=case.recompute)


def _planned(case: Case) -> float:
    model, recipe = _asked(case)
    return memory.plan(model, recipe, CLASSES, 1, in_c=native.load() is not None).total / GB


def measured(case: Case) -> float:
    """The most resident memory while network, state and one step are made, above that of the libraries, in GB."""
    torch.set_num_threads(1)
    _step(schema.Model(width=0.25, depth=0.2, resolution=0.15), schema.Recipe(global_batch=2, batch_slices=1))
    gc.collect()
    model, recipe = _asked(case)
    before = _resident()
    most, done = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, _resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _step(model, recipe)
    finally:
        done.set()
        watcher.join()
    return (most - before) / GB


def _step(model: schema.Model, recipe: schema.Recipe) -> None:
    network = build_model(model, CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.recompute = recipe.recompute
    state = initial_state(network, recipe)
    side = network.resolution
    images = torch.randn(recipe.global_batch, 3, side, side).to(memory_format=torch.channels_last)
    network.train()
    nn.functional.cross_entropy(network(images), torch.zeros(len(images), dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()


def _resident() -> int:
    """Bytes. Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
