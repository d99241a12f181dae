"""Training speeds of the processors that a plan counts with, all of them measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

from conf import schema
from infra import machine
from models.experiments.full_run import FULL_RUNS, GPU, GPU_BYTES
from models.networks.build import compute_cost

# Source: the log of `make reproduce`, two cores of an AMD EPYC, commit `7e70acd`, n = 1.
STEP_S = 0.015  # a step of two processes on CPU cores: loading, exchange of gradients, services on the same cores


@dataclass(frozen=True)
class Processor:
    """Measured training speeds of one processor.

    Attributes:
        name: For people.
        source: What was measured.
        speeds: Multiply-adds of an image and images per second, by multiply-adds.
        step_s: Seconds that a step of all processes takes besides, if the speeds exclude them.
        count: Number of them on this machine; None if jobs have as many as they request.
        memory_bytes: Memory of a GPU; None for cores, which have that of the machine.
    """

    name: str
    source: str
    speeds: tuple[tuple[int, float], ...]
    step_s: float = 0.0
    count: int | None = None
    memory_bytes: float | None = None

    def available(self, requested: int) -> int:
        """Number of processors that so many processes share."""
        return requested if self.count is None else min(requested, self.count)

    def images_per_s(self, multiply_adds: int) -> float:
        """Images per second, interpolated on logarithms.

        Above the table, multiply-adds per second are those of its last row. Below it, images per second are those of
        its first row, since a smaller network is not faster in proportion.
        """
        (smallest, fastest), (largest, slowest) = self.speeds[0], self.speeds[-1]
        if multiply_adds <= smallest:
            return fastest
        if multiply_adds >= largest:
            return slowest * largest / multiply_adds
        above = next(index for index, (known, _) in enumerate(self.speeds) if known >= multiply_adds)
        (x0, y0), (x1, y1) = self.speeds[above - 1], self.speeds[above]
        share = math.log(multiply_adds / x0) / math.log(x1 / x0)
        return math.exp((1 - share) * math.log(y0) + share * math.log(y1))


@cache
def gpu() -> Processor:
    """The GPU of ``models/experiments/full_run.py``, with the speeds of its rows."""
    sizes = {name: compute_cost(schema.Model(name=name), 1000)[1] for name in FULL_RUNS}
    speeds = tuple((sizes[name], run.images_per_s) for name, run in FULL_RUNS.items())
    source = "B0 and B4 measured in bf16, the others interpolated or limited (models/experiments/full_run.py)"
    return Processor(GPU, source, speeds, memory_bytes=GPU_BYTES)


# Source: benchmarks/README.md, `python -m benchmarks.step`, n = 3.
CPU_CORE = Processor(
    "CPU core",
    "AMD EPYC with AVX-512: networks of profile=laptop; B0, B3, and B7 at 160 px (benchmarks/README.md, step)",
    (
        (359_792, 3606.0),
        (2_244_928, 1496.0),
        (8_279_808, 566.0),
        (385_814_752, 32.5 / 2),
        (1_827_141_392, 7.39 / 2),
        (2_644_768_704, 6.56 / 2),
    ),
    STEP_S,
)
# Source: the same, medians of three runs of n = 3, which differed by up to a third.
AVX2_CORE = Processor(
    "CPU core",
    "AMD EPYC without AVX-512: networks of profile=laptop; B0, B3, and B7 at 160 px (benchmarks/README.md, step)",
    (
        (359_792, 1768.0),
        (2_244_928, 825.0),
        (8_279_808, 294.0),
        (385_814_752, 18.05 / 2),
        (1_827_141_392, 4.27 / 2),
        (2_644_768_704, 4.07 / 2),
    ),
    STEP_S,
)


def cpu() -> Processor:
    """The cores of this machine, with the speeds of the kind of core that is most like them."""
    return replace(CPU_CORE if machine.has_avx512() else AVX2_CORE, count=machine.cores())


def of_jobs(launch: schema.Launch, elsewhere: bool = False) -> Processor:
    """The processor that a process of a job has.

    Args:
        launch: How the jobs are started.
        elsewhere: Whether machines with GPUs run them, whatever this machine has.
    """
    has_gpu = elsewhere or launch.gpus_per_node > 0 or bool(machine.gpus())
    return gpu() if launch.uses_gpus and has_gpu else cpu()
