"""A network cut into stages on as many ranks, for activations that one device cannot hold: GPipe's schedule.

Every rank holds all weights and optimizer slots, a gigabyte and a half for B7; what is cut is the work and its
activations, tens of gigabytes. A rank computes its own stage of each micro-batch and leaves zeros for the others'
gradients, so the one message a step merges the stages exactly as it merges replicas, and checkpoints, evaluation
and resume know nothing of stages. A micro-batch is what is a pass without a pipeline (a logical shard, with
``recipe.bn_groups=shard``): batch statistics are the same, and so are all random numbers, since a stage first draws
those of the blocks before it. On CPU a step comes to the same bits as the uncut one. Source: GPipe (Huang et al.,
2018), arXiv:1811.06965; schedule and messages: torch.distributed.pipelining.
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
from models.networks.efficientnet.blocks import MBConv
from models.networks.efficientnet.network import Network
from models.training.distributed import Ranks
from models.training.flat import Layout
from models.training.memory import count_activations, cut_points, micro_batches_in_flight

if TYPE_CHECKING:
    from torch.distributed.pipelining import ScheduleGPipe


class Stage(nn.Module):
    """Parts ``first`` to ``last`` (left out) of a network: 0 is the stem, the last one the head.

    Args:
        network: whose weights it uses.
        first: part that it begins with.
        last: part that it ends before.
        begin: context of the forward pass of a micro-batch, by its number.
    """

    def __init__(
        self, network: Network, first: int, last: int, begin: Callable[[int], AbstractContextManager[None]]
    ) -> None:
        super().__init__()
        self.network, self.begin, self.number = [network], begin, 0  # in a list: not a module of this one's
        self.first, self.last, self.blocks = first, last, len(network.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Images or the activations of the stage before, contiguous -> activations, or logits."""
        network = self.network[0]
        with self.begin(self.number):
            self.number += 1
            x = _Layout.apply(x, torch.channels_last, torch.contiguous_format)  # type: ignore[no-untyped-call]
            if self.first == 0:
                x = network.stem(x)
            for block in islice(network.blocks, max(0, self.first - 1)):  # their random numbers are drawn, and dropped
                if isinstance(block, MBConv) and block.has_skip and block.drop.survival_prob < 1:
                    block.drop.drawn(x)
            x = network.middle(x, max(0, self.first - 1), min(self.last - 1, self.blocks))
            if self.last == self.blocks + 2:
                return network.classify(network.head(x))
            out: Tensor = _Layout.apply(x, torch.contiguous_format, torch.channels_last)  # type: ignore[no-untyped-call]
            return out


class _Layout(torch.autograd.Function):
    """Messages are contiguous, computing is channels_last; so are the gradients, the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: torch.memory_format, back: torch.memory_format) -> Tensor:
        ctx.back = back
        return x.contiguous(memory_format=there)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.contiguous(memory_format=ctx.back), None, None


class Pipeline:
    """This rank's stage under the schedule.

    Args:
        network: the whole one.
        layout: of its flat state.
        ranks: ``ranks.stages`` of them in a row make one pipeline.
        passes: micro-batches of a step.
        at_most: of them at once in the pipeline.
        bf16: whether stages compute, and so tell each other, bfloat16.
        begin: context of the forward pass of a micro-batch, by its number.
        loss: ``(logits, targets)`` of a micro-batch -> its part of the step's loss; called on the last stage.

    Raises:
        ConfigError: the network cannot be cut into so many stages.
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
        self.passes, self.together = passes, micro_batches_in_flight(passes, at_most)
        self.dtype = torch.bfloat16 if bf16 else torch.float32
        self.cuts = _cuts(network, ranks.stages)
        self.stage = Stage(network, self.cuts[ranks.stage], self.cuts[ranks.stage + 1], begin)
        self.own_statistics = _own_statistics(layout, self.stage).to(ranks.device)
        self._group = _group(ranks)
        self._schedule: ScheduleGPipe | None = None

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Forward and backward passes of all micro-batches; gradients are added to those of the own stage.

        Args:
            inputs: normalised images ``[N, 3, R, R]`` of this replica; the first stage uses them.
            targets: their labels ``[N]`` or ``[N, classes]``; the last one uses these.
        """
        if self._schedule is None:
            self._schedule = self._scheduled(len(inputs) // self.passes)
        self.stage.number = 0
        last = self.ranks.stage == self.ranks.stages - 1
        rounds = self.passes // self.together
        for images, labels in zip(inputs.chunk(rounds), targets.chunk(rounds), strict=True):
            arguments = (images.contiguous(),) if self.ranks.stage == 0 else ()
            self._schedule.step(*arguments, target=labels if last else None, return_outputs=False)

    def _scheduled(self, images: int) -> ScheduleGPipe:
        """The schedule, which must know beforehand what the messages between stages look like."""
        # Here, because it imports the compiler: a second that no other job need wait.
        from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

        ranks, stage = self.ranks, self.stage
        before, behind = self._message(stage.first, images), self._message(stage.last, images)
        cut = PipelineStage(stage, ranks.stage, ranks.stages, ranks.device, before, behind, group=self._group)
        return ScheduleGPipe(cut, self.together, loss_fn=self.loss, scale_grads=False)

    @torch.no_grad()
    def _message(self, part: int, images: int) -> Tensor:
        """What a micro-batch looks like before ``part``."""
        network, device = self.network, self.ranks.device
        network.eval()  # neither statistics nor random numbers change
        x = torch.zeros((1, 3, network.resolution, network.resolution), device=device)
        dtype = torch.float32 if part == 0 else self.dtype
        if part > 0:
            x = network.middle(network.stem(x), 0, min(part - 1, self.stage.blocks))
        if part == self.stage.blocks + 2:
            x = network.classify(network.head(x))
        network.train()
        return torch.empty((images, *x.shape[1:]), dtype=dtype, device=device, requires_grad=part > 0)


def _cuts(network: Network, stages: int) -> list[int]:
    """Parts that the stages begin with, and the end."""
    parts = len(network.blocks) + 2
    if stages >= parts:
        raise ConfigError(f"runtime.pipeline_stages={stages}: the network has only {parts} parts to share out")
    shapes = copy.deepcopy(network).to("meta").train()
    return [0, *cut_points(count_activations(shapes, 2, torch.float32), stages), parts]


def _own_statistics(layout: Layout, stage: Stage) -> Tensor:
    """1 for the BN statistics that this stage moves, 0 for the others'; ``[layout.size - layout.parameters]``."""
    names = {"stem": 0, "head": stage.blocks + 1}
    own = torch.zeros(layout.size - layout.parameters)
    for field in layout.fields:
        group, _, rest = field.name.partition(".")
        part = names[group] if group in names else int(rest.partition(".")[0]) + 1 if group == "blocks" else -1
        if field.start >= layout.parameters and stage.first <= part < stage.last:
            start = field.start - layout.parameters
            own[start : start + math.prod(field.shape)] = 1
    return own


def _group(ranks: Ranks) -> dist.ProcessGroup | None:
    """The ranks of this pipeline; every rank takes part in making every group."""
    groups = [list(range(first, first + ranks.stages)) for first in range(0, ranks.world_size, ranks.stages)]
    made: list[dist.ProcessGroup] = [dist.new_group(group) for group in groups]
    return made[ranks.replica]
