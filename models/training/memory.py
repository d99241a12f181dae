"""What a training step will hold in memory, counted before it runs.

Activations that the backward pass needs are counted on the meta device, by autograd's own account of what it keeps:
each storage once, weights left out. What the kernels need besides (workspaces, the gradient that is just on its way)
and the allocator's waste come on top; measured against a real step: benchmarks/README.md, memory.
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
    """Bytes of one pass, for the stem, each block, and the head in order."""

    kept: tuple[int, ...]  # for the backward pass
    inputs: tuple[int, ...]  # of these, the part's own input: all that is kept where activations are computed again

    def peak(self, first: int, last: int, recompute: bool, passes: int = 1) -> int:
        """Of parts ``first`` to ``last`` (left out), where ``passes`` of them wait for their backward pass."""
        if not recompute:
            return passes * sum(self.kept[first:last])
        ends = {0, len(self.kept) - 1}  # stem and head are never computed again
        again = [part for part in range(first, last) if part not in ends]
        waiting = sum(self.kept[part] if part in ends else self.inputs[part] for part in range(first, last))
        return passes * waiting + max((self.kept[part] for part in again), default=0)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one rank."""

    state: int  # weights, gradients, optimizer, averages
    activations: int  # of the largest pass
    batch: int  # the rank's images of one step, as bytes, and normalised those of a pass

    @property
    def total(self) -> int:
        """All of it."""
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
    """Counts what a step holds on the rank that holds most.

    Args:
        model: which network.
        recipe: batch, logical shards and how many are computed at once, recomputation.
        classes: width of the classifier.
        replicas: ranks, or groups of ``stages`` ranks.
        stages: parts that the network is cut into, see pipeline.py.
        micro_batches: at once in the pipeline, as in ``runtime.micro_batches``.
        bf16: whether it runs under autocast.
    """
    network = build_model(model, classes, device="meta").train()
    together = slices_per_pass(recipe, replicas)
    images = recipe.global_batch // recipe.logical_shards * together
    passes = recipe.logical_shards // replicas // together
    dtype = torch.bfloat16 if bf16 else torch.float32
    found = count_activations(network, images, dtype)
    cuts = [0, *cut_points(found, stages), len(found.kept)]
    waiting = micro_batches_in_flight(passes, micro_batches or stages) if stages > 1 else 1
    held = max(found.peak(a, b, recipe.recompute, waiting) for a, b in itertools.pairwise(cuts))
    floats = sum(t.numel() for t in (*network.parameters(), *network.buffers()) if t.is_floating_point())
    casts = 2 * floats if bf16 else 0
    pixels = 3 * network.resolution**2
    batch = images * passes * pixels + images * waiting * pixels * 4
    return MemoryPlan(4 * _FLATS * floats + casts, held, batch)


def slices_per_pass(recipe: schema.Recipe, replicas: int) -> int:
    """Logical shards that a pass computes at once."""
    own = recipe.logical_shards // replicas
    return 1 if recipe.bn_groups == "shard" else min(own, recipe.shards_per_pass or own)


def micro_batches_in_flight(passes: int, at_most: int) -> int:
    """Micro-batches that go through the pipeline together: forward with all of them, then back."""
    return next(count for count in range(min(passes, at_most), 0, -1) if passes % count == 0)


def cut_points(found: Activations, stages: int) -> list[int]:
    """First parts of the stages after the first, so that each keeps about the same amount. The last one has a block."""
    cuts: list[int] = []
    whole, so_far = sum(found.kept), 0
    for part, size in enumerate(found.kept):
        if len(cuts) < stages - 1 and so_far + size / 2 >= whole * (len(cuts) + 1) / stages and part > 0:
            cuts.append(part)
        so_far += size
    return cuts


def count_activations(network: Network, images: int, dtype: torch.dtype) -> Activations:
    """Runs the network once on the meta device, where nothing is computed.

    Args:
        network: on the meta device, in training mode.
        images: in the pass.
        dtype: that it computes in.
    """
    network = network.to(dtype)
    side = network.resolution
    parts: list[Callable[[Tensor], Tensor]] = [
        network.stem,
        *network.blocks,
        lambda x: network.classify(network.head(x)),
    ]
    x = torch.empty((images, 3, side, side), device="meta", dtype=dtype)
    seen: dict[int, torch.UntypedStorage] = {}  # alive, so that no address comes twice
    weights = {_address(t) for t in (*network.parameters(), *network.buffers())}

    def note(tensor: Tensor) -> Tensor:
        if _address(tensor) not in weights:
            seen[_address(tensor)] = tensor.untyped_storage()
        return tensor

    kept, inputs, before = [], [], 0
    for part in parts:
        inputs.append(x.untyped_storage().nbytes())
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            x = part(x)
        now = sum(storage.nbytes() for storage in seen.values())
        kept.append(now - before)
        before = now
    return Activations(tuple(kept), tuple(inputs))


def _address(tensor: Tensor) -> int:
    """Of the storage, which views share."""
    return int(tensor.untyped_storage()._cdata)
