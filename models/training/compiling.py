"""Decides whether torch.compile pays off; it does not for short jobs."""

from __future__ import annotations

import logging

from torch import nn

from conf.schema import Job
from models.networks.build import compute_cost
from models.training.distributed import Ranks

log = logging.getLogger("effnet")
# With less computation left per rank (training images x multiply-adds per image), compiling does not pay off: on an
# H200 it took 60 s for B0 and raised throughput from 4,930 to 6,300 images/s, which breaks even after 1.4 million
# images of 0.39 G. Measured: benchmarks/README.md, step.
BREAK_EVEN_MULTIPLY_ADDS = 5e14


def compile_if_worth(network: nn.Module, job: Job, ranks: Ranks, steps_left: int) -> bool:
    """Compiles the network in place if configured, or if it will save more time than it costs.

    Args:
        network: The network; its parameter names and tensors do not change.
        job: The job, for ``runtime.compile``; ``auto`` compiles on a GPU beyond the break-even point.
        ranks: Position of this process in the job.
        steps_left: Remaining steps of the job.
    """
    if ranks.stages > 1:
        worth = False  # a stage runs parts of the network, but only the whole network can be compiled
    elif job.runtime.compile != "auto" or ranks.device.type != "cuda":
        worth = job.runtime.compile == "on"
    else:
        classes = int(network.classifier.out_features)  # type: ignore[union-attr, arg-type]
        _, multiply_adds, _ = compute_cost(job.model, classes)
        left = steps_left * job.recipe.global_batch / ranks.world_size * multiply_adds
        worth = left > BREAK_EVEN_MULTIPLY_ADDS
    if worth:
        log.info("compiling the network; the first step takes about a minute longer")
        network.compile()
    return worth
