"""Pipeline parallelism with GPipe's schedule, for activations that do not fit on one device.

Every rank holds all weights and optimizer slots, 1.5 GB for B7; only the computation and its activations, tens of
gigabytes, are split. A rank computes its stage of each micro-batch and leaves the gradients of the other stages at
zero, so the one message per step merges stages exactly as it merges replicas, and checkpoints, evaluation and resume
are independent of stages. A micro-batch corresponds to a pass without a pipeline (a batch slice, with
``recipe.bn_groups=slice``): batch statistics are the same, and so are all random numbers, since a stage first draws
those of the preceding blocks. On CPU a step ends with identical bits with and without a pipeline.

Source: GPipe (Huang et al., 2018), arXiv:1811.06965; schedule and messages: torch.distributed.pipelining.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from infra.errors import ConfigError
from models.networks.efficientnet.blocks import FusedMBConv, MBConv
from models.networks.efficientnet.network import Network
from models.networks.memory import count_activations, cut_points, micro_batches_in_flight
from models.training.distributed import Ranks
from models.training.flat import Layout

if TYPE_CHECKING:
    from torch.distributed.pipelining import ScheduleGPipe


class Stage(nn.Module):
    """Parts ``[first, last)`` of a network: part 0 is the stem, the last part is the head.

    Args:
        network: The network whose weights the stage uses.
        first: First part of the stage.
        last: Part after the last part of the stage.
        begin: Returns the context for the forward pass of a micro-batch, given its number.
    """

    def __init__(
        self, network: Network, first: int, last: int, begin: Callable[[int], AbstractContextManager[None]]
    ) -> None:
        super().__init__()
        self.network, self.begin, self.number = ([network], begin, 0)  # in a list: not registered as a submodule
        self.first, self.last, self.blocks = first, last, len(network.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images or the previous stage's activations (contiguous) to activations, or logits on the last stage."""
        network = self.network[0]
        with self.begin(self.number):
            self.number += 1
            x = _MemoryFormat.apply(x, torch.channels_last, torch.contiguous_format)  # type: ignore[no-untyped-call]
            if self.first == 0:
                x = network.stem(x)
            for block in islice(network.blocks, max(0, self.first - 1)):  # draws and discards their random numbers
                if isinstance(block, MBConv | FusedMBConv) and block.has_skip and block.drop.survival_prob < 1:
                    block.drop.drawn(x)
            x = network.middle(x, max(0, self.first - 1), min(self.last - 1, self.blocks))
            if self.last == self.blocks + 2:
                return network.classify(network.head(x))
            out: Tensor = _MemoryFormat.apply(x, torch.contiguous_format, torch.channels_last)  # type: ignore[no-untyped-call]
            return out


class _MemoryFormat(torch.autograd.Function):
    """Converts between contiguous messages and channels_last computation, and gradients in the opposite direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: torch.memory_format, backward: torch.memory_format) -> Tensor:
        ctx.backward_format = backward
        return x.contiguous(memory_format=forward)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.contiguous(memory_format=ctx.backward_format), None, None


class Pipeline:
    """This rank's stage and its schedule.

    Args:
        network: The whole network.
        layout: Layout of the network's flat state.
        ranks: Position of this process; ``ranks.stages`` consecutive ranks form one pipeline.
        passes: Micro-batches per step.
        at_most: Maximum number of micro-batches concurrently in the pipeline.
        bf16: Whether stages compute, and therefore exchange, bfloat16.
        begin: Returns the context for the forward pass of a micro-batch, given its number.
        loss: Maps ``(logits, targets)`` of a micro-batch to its part of the step's loss; called on the last stage.

    Raises:
        ConfigError: The network cannot be split into this many stages.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: Layout,
        ranks: Ranks,
        passes: int,
        at_most: int,
        bf16: bool,
        begin: Callable[[int], AbstractContextManager[None]],
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        if not isinstance(network, Network):
            raise ConfigError("runtime.pipeline_stages > 1 needs a network with stem, blocks and head")
        self.network, self.ranks, self.loss = network, ranks, loss
        self.passes, self.in_flight = passes, micro_batches_in_flight(passes, at_most)
        self.dtype = torch.bfloat16 if bf16 else torch.float32
        self.cuts = _stage_bounds(network, ranks.stages)
        self.stage = Stage(network, self.cuts[ranks.stage], self.cuts[ranks.stage + 1], begin)
        self.statistics_mask = _statistics_mask(layout, self.stage).to(ranks.device)
        self._group = _create_group(ranks)
        self._schedule: ScheduleGPipe | None = None

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Forward and backward passes of all micro-batches; adds gradients for this rank's stage.

        Args:
            inputs: Normalized images ``[N, 3, R, R]`` of this replica, used by the first stage.
            targets: Their labels ``[N]`` or ``[N, classes]``, used by the last stage.
        """
        if self._schedule is None:
            self._schedule = self._build_schedule(len(inputs) // self.passes)
        self.stage.number = 0
        last = self.ranks.stage == self.ranks.stages - 1
        rounds = self.passes // self.in_flight
        for images, labels in zip(inputs.chunk(rounds), targets.chunk(rounds), strict=True):
            arguments = (images.contiguous(),) if self.ranks.stage == 0 else ()
            self._schedule.step(*arguments, target=labels if last else None, return_outputs=False)

    def _build_schedule(self, images: int) -> ScheduleGPipe:
        """Builds the schedule from the shapes of the messages between stages."""
        # Imported here because it imports torch's compiler, which takes about a second and only this job needs.
        from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

        ranks, stage = self.ranks, self.stage
        inputs, outputs = self._message(stage.first, images), self._message(stage.last, images)
        pipeline_stage = PipelineStage(
            stage, ranks.stage, ranks.stages, ranks.device, inputs, outputs, group=self._group
        )
        return ScheduleGPipe(pipeline_stage, self.in_flight, loss_fn=self.loss, scale_grads=False)

    @torch.no_grad()
    def _message(self, part: int, images: int) -> Tensor:
        """Returns an empty tensor with the shape and dtype of a micro-batch before ``part``."""
        network, device = self.network, self.ranks.device
        network.eval()  # leaves BN statistics and random state unchanged
        x = torch.zeros((1, 3, network.resolution, network.resolution), device=device)
        dtype = torch.float32 if part == 0 else self.dtype
        if part > 0:
            x = network.middle(network.stem(x), 0, min(part - 1, self.stage.blocks))
        if part == self.stage.blocks + 2:
            x = network.classify(network.head(x))
        network.train()
        return torch.empty((images, *x.shape[1:]), dtype=dtype, device=device, requires_grad=part > 0)


def _stage_bounds(network: Network, stages: int) -> list[int]:
    """Returns the first part of each stage, followed by the number of parts."""
    parts = len(network.blocks) + 2
    if stages >= parts:
        raise ConfigError(f"runtime.pipeline_stages={stages}: the network has only {parts} parts to distribute")
    shapes = copy.deepcopy(network).to("meta").train()
    return [0, *cut_points(count_activations(shapes, 2, torch.float32), stages), parts]


def _statistics_mask(layout: Layout, stage: Stage) -> Tensor:
    """Returns a mask ``[layout.size - layout.parameters]``: 1 for the BN statistics of this stage, 0 for others."""
    names = {"stem": 0, "head": stage.blocks + 1}
    mask = torch.zeros(layout.size - layout.parameters)
    for field in layout.fields:
        group, _, rest = field.name.partition(".")
        part = names[group] if group in names else int(rest.partition(".")[0]) + 1 if group == "blocks" else -1
        if field.start >= layout.parameters and stage.first <= part < stage.last:
            start = field.start - layout.parameters
            mask[start : start + math.prod(field.shape)] = 1
    return mask


def _create_group(ranks: Ranks) -> dist.ProcessGroup | None:
    """Creates the process group of this pipeline; torch requires every rank to take part in creating every group."""
    members = [list(range(first, first + ranks.stages)) for first in range(0, ranks.world_size, ranks.stages)]
    groups: list[dist.ProcessGroup] = [dist.new_group(ranks_of_group) for ranks_of_group in members]
    return groups[ranks.replica]
