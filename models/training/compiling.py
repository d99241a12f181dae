"""Whether torch.compile is worth its time: short jobs must not pay for it."""

from __future__ import annotations

import logging

from torch import nn

from conf.schema import Job
from models.networks.build import compute_cost
from models.training.distributed import Ranks

log = logging.getLogger("effnet")
# Below this much left to compute on a rank (training images x multiply-adds of one) compiling does not pay: on an H200
# it cost B0 60 s and made 6,300 of 4,930 images/s, so it was won back after 1.4 million images of 0.39 G. Measured:
# benchmarks/README.md, step.
BREAK_EVEN_MULTIPLY_ADDS = 5e14


def compile_if_worth(network: nn.Module, job: Job, ranks: Ranks, steps_left: int) -> bool:
    """Compiles the network in place where asked for, or where it will win back what it costs.

    Args:
        network: keeps its names and its tensors.
        job: ``runtime.compile``; ``auto`` compiles on a GPU beyond the break-even.
        ranks: this process.
        steps_left: of the job.
    """
    if ranks.stages > 1:
        worth = False  # a stage runs parts of the network, which is compiled as a whole
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
