"""Memory of a training step, computed before it runs.

Activations needed by the backward pass are the tensors that autograd saves: each storage once, weights excluded. For
the EfficientNet family they are computed by arithmetic without torch, for a baseline counted on the meta device; both
give the same numbers (tests/unit/models/networks/test_memory.py). The layers in C for CPUs (``models.networks.fused``)
keep less: no output of a batch norm before its activation, and no padded input. Kernel workspaces, gradients in
transit and allocator overhead are not included; measured against a real step: benchmarks/README.md, memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from conf import schema
from models.networks.build import build_model, resolve_architecture
from models.networks.complexity import count_architecture
from models.networks.efficientnet.variants import VARIANTS, Architecture, Stage, squeezed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from models.networks.efficientnet.network import Network

# Share of a GPU's memory for what is planned; workspaces and the allocator's overhead need the rest.
USABLE = 0.8
STEP_PER_FORWARD = 3  # a forward pass is a third of a training step: gradients of inputs and of weights take as long
_FLATS = 6  # float32: values, message, average, best, and two slots of the optimizer


@dataclass(frozen=True)
class Activations:
    """Bytes of one pass for the stem, each block and the head, in this order."""

    kept: tuple[int, ...]  # for the backward pass
    inputs: tuple[int, ...]  # of these, the part's input, which is all that recomputation keeps

    def peak(self, first: int, last: int, recompute: bool, passes: int = 1) -> int:
        """Returns the peak of parts ``[first, last)`` while ``passes`` passes wait for their backward pass."""
        if not recompute:
            return passes * sum(self.kept[first:last])
        ends = {0, len(self.kept) - 1}  # stem and head are never recomputed
        recomputed = [part for part in range(first, last) if part not in ends]
        waiting = sum(self.kept[part] if part in ends else self.inputs[part] for part in range(first, last))
        return passes * waiting + max((self.kept[part] for part in recomputed), default=0)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one rank."""

    state: int  # weights, gradients, optimizer, averages
    activations: int  # of the largest pass
    batch: int  # a step's images as bytes, plus the normalized images of a pass

    @property
    def total(self) -> int:
        """Total bytes."""
        return self.state + self.activations + self.batch


def plan(
    model: schema.Model,
    recipe: schema.Recipe,
    classes: int,
    replicas: int,
    stages: int = 1,
    micro_batches: int | None = None,
    bf16: bool = False,
    in_c: bool = False,
) -> MemoryPlan:
    """Computes the memory of a step on the rank that needs the most.

    Args:
        model: The network.
        recipe: Global batch, batch slices, slices per pass, recomputation.
        classes: Number of classes.
        replicas: Number of ranks, or of groups of ``stages`` ranks.
        stages: Number of pipeline stages; see pipeline.py.
        micro_batches: Micro-batches concurrently in the pipeline, as in ``runtime.micro_batches``.
        bf16: Whether the step runs under bfloat16 autocast.
        in_c: Whether the layers in C compute, as on a CPU in float32.
    """
    images = recipe.global_batch // recipe.batch_slices * slices_per_pass(recipe, replicas)
    passes = passes_per_step(recipe, replicas)
    activations, floats, resolution = _measure(model, classes, images, bf16, in_c)
    cuts = [0, *cut_points(activations, stages), len(activations.kept)]
    waiting = micro_batches_in_flight(passes, micro_batches or stages) if stages > 1 else 1
    peak = max(activations.peak(first, last, recipe.recompute, waiting) for first, last in itertools.pairwise(cuts))
    casts = 2 * floats if bf16 else 0
    pixels = 3 * resolution**2
    batch = images * passes * pixels + images * waiting * pixels * 4
    return MemoryPlan(4 * _FLATS * floats + casts, peak, batch)


def exceeds_gpu(planned: int, gpu_bytes: float, stages: int = 1) -> bool:
    """Whether activations are recomputed because a step does not fit a GPU.

    Args:
        planned: Bytes of the step with all activations in memory.
        gpu_bytes: Memory of the GPU.
        stages: Number of pipeline stages; with several, activations are not recomputed.
    """
    return stages == 1 and planned > USABLE * gpu_bytes


def recomputes_on_gpu(
    model: schema.Model, recipe: schema.Recipe, classes: int, replicas: int, gpu_bytes: float, stages: int = 1
) -> bool:
    """Whether a training in bfloat16 recomputes activations on such GPUs; networks of others are taken to fit.

    Args:
        model: The network.
        recipe: Its recipe.
        classes: Number of classes.
        replicas: Number of ranks, or of groups of ``stages`` ranks.
        gpu_bytes: Memory of a GPU.
        stages: Number of pipeline stages.
    """
    if recipe.recompute or stages > 1 or model.name not in VARIANTS:
        return recipe.recompute
    return exceeds_gpu(plan(model, recipe, classes, min(replicas, recipe.batch_slices), bf16=True).total, gpu_bytes)


def _measure(model: schema.Model, classes: int, images: int, bf16: bool, in_c: bool) -> tuple[Activations, int, int]:
    """Returns the activations of a pass, the number of floats of the weights and statistics, and the image's side."""
    if model.name in VARIANTS:
        arch = resolve_architecture(model)
        activations, channels = compute_activations(arch, images, model.survival_prob, bf16, in_c)
        return activations, count_architecture(arch, classes)[0] + 2 * channels, arch.resolution
    import torch

    network = build_model(model, classes, device="meta").train()
    floats = sum(t.numel() for t in (*network.parameters(), *network.buffers()) if t.is_floating_point())
    dtype = torch.bfloat16 if bf16 else torch.float32
    return count_activations(network, images, dtype), floats, network.resolution


def slices_per_pass(recipe: schema.Recipe, replicas: int) -> int:
    """Returns the number of batch slices per pass."""
    per_rank = recipe.batch_slices // replicas
    return 1 if recipe.bn_groups == "slice" else min(per_rank, recipe.slices_per_pass or per_rank)


def passes_per_step(recipe: schema.Recipe, replicas: int) -> int:
    """Returns the number of passes of a replica, whose gradients accumulate to its share of a step."""
    return recipe.batch_slices // replicas // slices_per_pass(recipe, replicas)


def micro_batches_in_flight(passes: int, at_most: int) -> int:
    """Returns how many micro-batches go through the pipeline together: all forward, then all backward."""
    return next(count for count in range(min(passes, at_most), 0, -1) if passes % count == 0)


def cut_points(activations: Activations, stages: int) -> list[int]:
    """Returns the first part of every stage but the first, balancing the activations that the stages keep.

    The last stage has at least one block.
    """
    cuts: list[int] = []
    total, so_far = sum(activations.kept), 0
    for part, size in enumerate(activations.kept):
        if len(cuts) < stages - 1 and so_far + size / 2 >= total * (len(cuts) + 1) / stages and part > 0:
            cuts.append(part)
        so_far += size
    return cuts


@dataclass
class _Saved:
    """Numbers that autograd saves, part by part, and the shape of the next layer's input."""

    channels: int
    side: int
    same: bool  # strided convolutions pad as TensorFlow does, and save the padded copy
    in_c: bool
    values: int = 0  # of one image
    normalized: int = 0  # channels of batch norms

    def add_conv_norm(
        self, channels: int, kernel: int, stride: int, activated: bool = True, depthwise: bool = False
    ) -> None:
        """Convolution, batch norm and activation save their inputs; batch norm its statistics too, counted apart."""
        side = math.ceil(self.side / stride)
        pads = self.same and stride > 1 and not (self.in_c and depthwise)
        padding = max(0, (side - 1) * stride + kernel - self.side) if pads else 0
        self.values += self.channels * (self.side + padding) ** 2
        self.channels, self.side = channels, side
        self.values += (1 + (activated and not self.in_c)) * channels * side**2
        self.normalized += channels

    def add_gate(self, width: int) -> None:
        """Squeeze-and-excitation saves means, squeezed values before and after the activation, gates, and its input."""
        self.values += 2 * self.channels + 2 * width + self.channels * self.side**2


def compute_activations(
    arch: Architecture, images: int, survival_prob: float, bf16: bool = False, in_c: bool = False
) -> tuple[Activations, int]:
    """Computes what ``count_activations`` counts, and the number of channels with batch-norm statistics.

    Args:
        arch: A network of the family.
        images: Images per pass.
        survival_prob: Survival probability of the last block; from 1 down no block is dropped.
        bf16: Whether values are bfloat16 and not float32.
        in_c: Whether the layers in C compute; the weights of their squeeze-and-excitation are not counted.
    """
    size = 2 if bf16 else 4
    saved = _Saved(3, arch.resolution, arch.padding == "same", in_c)
    kept, inputs = [], []

    def end_part(before: _Saved) -> None:
        statistics = 2 * 4 * (saved.normalized - before.normalized)  # mean and deviation, always in float32
        kept.append(size * images * (saved.values - before.values) + statistics)
        inputs.append(size * images * before.channels * before.side**2)

    before = replace(saved)
    saved.add_conv_norm(arch.stem, 3, 2)
    end_part(before)
    for stage in arch.stages:
        for repeat in range(stage.repeats):
            before = replace(saved)
            _add_block(saved, stage, stage.stride if repeat == 0 else 1, len(kept) > 1 and survival_prob < 1)
            end_part(before)
    before = replace(saved)
    saved.add_conv_norm(arch.head, 1, 1)
    saved.values += (1 + (arch.dropout > 0)) * arch.head  # means, or the classifier's input and what was dropped
    end_part(before)
    return Activations(tuple(kept), tuple(inputs)), saved.normalized


def _add_block(saved: _Saved, stage: Stage, stride: int, dropped: bool) -> None:
    """Adds a ``blocks.MBConv`` or ``blocks.FusedMBConv``."""
    channels = saved.channels
    inner = channels * stage.expand_ratio
    if not stage.fused and stage.expand_ratio != 1:
        saved.add_conv_norm(inner, 1, 1)
    saved.add_conv_norm(inner, stage.kernel, stride, depthwise=not stage.fused)
    if stage.se_ratio:
        saved.add_gate(squeezed(channels, stage.se_ratio))
    saved.add_conv_norm(stage.channels, 1, 1, activated=False)
    has_skip = stage.skip and stride == 1 and channels == stage.channels
    saved.values += dropped and has_skip  # one factor for each image


def count_activations(network: Network, images: int, dtype: torch.dtype) -> Activations:
    """Counts saved activations by running the network once on the meta device, where nothing is computed.

    Args:
        network: A network on the meta device, in training mode.
        images: Images per pass.
        dtype: Data type of the computation.
    """
    import torch

    network = network.to(dtype)
    size = network.resolution
    parts: list[Callable[[Tensor], Tensor]] = [
        network.stem,
        *network.blocks,
        lambda x: network.classify(network.head(x)),
    ]
    x = torch.empty((images, 3, size, size), device="meta", dtype=dtype)
    saved: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address is reused
    weights = {_address(t) for t in (*network.parameters(), *network.buffers())}

    def record(tensor: Tensor) -> Tensor:
        if _address(tensor) not in weights:
            saved[_address(tensor)] = tensor.untyped_storage()
        return tensor

    kept, inputs, before = [], [], 0
    for part in parts:
        inputs.append(x.untyped_storage().nbytes())
        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            x = part(x)
        total = sum(storage.nbytes() for storage in saved.values())
        kept.append(total - before)
        before = total
    return Activations(tuple(kept), tuple(inputs))


def _address(tensor: Tensor) -> int:
    """Returns the address of the tensor's storage, which views share."""
    return int(tensor.untyped_storage()._cdata)
