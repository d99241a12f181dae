"""Memory of a training step, computed before it runs.

Activations needed by the backward pass are counted on the meta device from the tensors that autograd saves: each
storage once, weights excluded. Kernel workspaces, gradients in transit and allocator overhead are not included;
measured against a real step: benchmarks/README.md, memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from conf import schema
from models.networks.build import build_model
from models.networks.efficientnet.network import Network

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
    """
    network = build_model(model, classes, device="meta").train()
    per_pass = slices_per_pass(recipe, replicas)
    images = recipe.global_batch // recipe.batch_slices * per_pass
    passes = recipe.batch_slices // replicas // per_pass
    dtype = torch.bfloat16 if bf16 else torch.float32
    activations = count_activations(network, images, dtype)
    cuts = [0, *cut_points(activations, stages), len(activations.kept)]
    waiting = micro_batches_in_flight(passes, micro_batches or stages) if stages > 1 else 1
    peak = max(activations.peak(first, last, recipe.recompute, waiting) for first, last in itertools.pairwise(cuts))
    floats = sum(t.numel() for t in (*network.parameters(), *network.buffers()) if t.is_floating_point())
    casts = 2 * floats if bf16 else 0
    pixels = 3 * network.resolution**2
    batch = images * passes * pixels + images * waiting * pixels * 4
    return MemoryPlan(4 * _FLATS * floats + casts, peak, batch)


def slices_per_pass(recipe: schema.Recipe, replicas: int) -> int:
    """Returns the number of batch slices per pass."""
    per_rank = recipe.batch_slices // replicas
    return 1 if recipe.bn_groups == "slice" else min(per_rank, recipe.slices_per_pass or per_rank)


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


def count_activations(network: Network, images: int, dtype: torch.dtype) -> Activations:
    """Counts saved activations by running the network once on the meta device, where nothing is computed.

    Args:
        network: A network on the meta device, in training mode.
        images: Images per pass.
        dtype: Data type of the computation.
    """
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
