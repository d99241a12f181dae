"""What a checkpoint costs the steps around it: B0 trained with a checkpoint every 50 steps, beside steps without.

The time that the training thread itself is held (the copy in memory), and how much slower the steps become while the
writer's thread hashes and writes on the same cores. The rival is the same engine without checkpoints.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time

import torch

from benchmarks import harness
from benchmarks.step import Case, Step, batch_of, our_step
from conf.schema import Runtime
from models.training.checkpoints.save_resume import CheckpointManager
from models.training.checkpoints.writer import CheckpointWriter
from models.training.distributed import Ranks
from models.training.supervision.faults import Faults
from models.training.supervision.preemption import Preemption
from models.training.supervision.watchdog import Watchdog

EVERY, CASE = 50, Case("b0", 64, 16)


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=3)
    report = harness.Report(options.n)
    device = torch.device("cpu")
    step, state = our_step(CASE, device, False, batch_of(CASE, device))
    ranks = Ranks(0, 1, device)
    before = signal.getsignal(signal.SIGTERM)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        job_uri = f"file://{folder}"
        watchdog = Watchdog(job_uri, ranks, Runtime(), Preemption(), print)
        saver = CheckpointWriter(job_uri, {}, 2, Faults(job_uri, 0), watchdog)
        keeper = CheckpointManager(job_uri, ranks, {}, False, saver, None)
        step()
        plain: list[float] = []
        saving: list[float] = []
        held: list[float] = []
        for _ in range(options.n + 1):  # the first takes the copies' memory
            plain.append(_timed(step))
            began = time.perf_counter()
            keeper.save(state)
            held.append(time.perf_counter() - began)
            saving.append(_timed(step) + held[-1])
        keeper.wait()
        watchdog.close()
    signal.signal(signal.SIGTERM, before)
    a_step = report.add("a step without", [t / EVERY * 1000 for t in plain[1:]], "ms")
    report.add("the step held by the copy", [t * 1000 for t in held[1:]], "ms")
    report.add("a step with a checkpoint every 50", [t / EVERY * 1000 for t in saving[1:]], "ms")
    report.ratios["held per step/step"] = statistics.median(held[1:]) * 1000 / EVERY / a_step
    report.ratios["with/without"] = statistics.median(saving[1:]) / statistics.median(plain[1:])
    report.notes.append(f"{os.cpu_count()} cores; B0 at {CASE.side} px, batch {CASE.batch}; the store is a folder")
    harness.show(report, options.json)


def _timed(step: Step) -> float:
    began = time.perf_counter()
    for _ in range(EVERY):
        step()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
