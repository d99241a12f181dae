"""Training speed of this machine: a few steps of a command's networks on made-up images (``effnet plan --probe``)."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch

from conf import schema
from infra.errors import CapacityError, ConfigError
from models.data.loading.loader import Batch
from models.networks.build import build_model, compute_cost
from models.networks.memory import STEP_PER_FORWARD, passes_per_step, recomputes_on_gpu, slices_per_pass
from models.training import capacity
from models.training.checkpoints import state as states
from models.training.distributed import Ranks
from models.training.step import Stepper
from models.training.supervision.faults import Faults
from models.training.supervision.watchdog import Watchdog

_PROBED = 3  # networks: the smallest, the middle one, the largest; the others are interpolated
_STEPS_S = 0.5  # time of the measured steps of one network
_CPU_LIMIT = 2_000_000_000  # multiply-adds of a step, which take about a second on a core
_GPU_LIMIT = 2_500_000_000_000  # the same on a GPU, about 0.6 s of an H200: one pass of 64 images of B7


@dataclass(frozen=True)
class Probe:
    """Measured training speeds of one process.

    Attributes:
        gpu: Name of the GPU; empty for a CPU core.
        source: What was measured.
        speeds: Multiply-adds of an image and images per second with all activations in memory, by multiply-adds.
        memory_bytes: Memory of the GPU; None for a CPU core.
    """

    gpu: str
    source: str
    speeds: tuple[tuple[int, float], ...]
    memory_bytes: int | None = None


def measure(config: schema.Config, models: Sequence[schema.Model], classes: int) -> Probe:
    """Measures the training speed of one process on this machine's GPU, or else on one of its cores.

    A step has the passes of one process of a job, with their images, and fewer where it would take long. Where a job
    would recompute activations, so does the step; its speed is then that without it, since a plan adds the time of
    recomputation (``models/experiments/work.py``).

    Args:
        config: Configuration with recipe and launch.
        models: Networks, of which at most three are trained for half a second each.
        classes: Number of classes.

    Raises:
        ConfigError: Every network is too large for a probe on a CPU.
        CapacityError: The GPU has too little memory.
    """
    sizes = {compute_cost(model, classes)[1]: model for model in models}
    on_gpu = torch.cuda.is_available() and config.launch.uses_gpus
    fitting = sorted(size for size in sizes if on_gpu or size <= _CPU_LIMIT)
    if not fitting:
        raise ConfigError(
            f"--probe: a step of {models[0].name} on one image takes too long on a CPU; plan it without --probe"
        )
    chosen = sorted({fitting[0], fitting[len(fitting) // 2], fitting[-1]})[:_PROBED]
    device = torch.device("cuda" if on_gpu else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # speeds are those of one core
    try:
        speeds = tuple((size, _images_per_s(config, sizes[size], size, classes, device)) for size in chosen)
    except torch.cuda.OutOfMemoryError as error:
        raise CapacityError("--probe: the GPU has too little memory for a step; lower recipe.global_batch") from error
    finally:
        torch.set_num_threads(threads)
    names = ", ".join(sizes[size].name for size in chosen)
    source = f"probe of this machine: steps of {names} on made-up images, {_STEPS_S:g} s each"
    if not on_gpu:
        return Probe("", source, speeds)
    return Probe(shorten(torch.cuda.get_device_name()), source, speeds, capacity.gpu_bytes()[0])


def shorten(name: str) -> str:
    """``NVIDIA H100 80GB HBM3`` -> ``H100``."""
    model = re.search(r"[A-Z]*\d+\w*", name)
    return model[0] if model else name


def probed_recipe(recipe: schema.Recipe, replicas: int, at_most: int) -> schema.Recipe:
    """The recipe of the steps that are measured: the passes of one replica of a job.

    Args:
        recipe: Recipe of the job.
        replicas: Copies of the network.
        at_most: Maximum number of images of a step; a pass is shortened only if it alone exceeds it.
    """
    replicas = min(replicas, recipe.batch_slices)
    whole = recipe.global_batch // recipe.batch_slices * slices_per_pass(recipe, replicas)
    images = min(at_most, max(1, whole))
    passes = min(passes_per_step(recipe, replicas), at_most // images)
    return replace(
        recipe,
        global_batch=images * passes,
        batch_slices=passes,
        bn_groups="slice",  # one for each pass
        slices_per_pass=None,
        warmup_epochs=0.0,
    )


def _recomputes(config: schema.Config, model: schema.Model, classes: int, device: torch.device) -> bool:
    """Whether the plan of a job counts recomputed activations on this device."""
    if device.type != "cuda":
        return config.recipe.recompute
    stages, memory_bytes = config.runtime.pipeline_stages, capacity.gpu_bytes()[0]
    return recomputes_on_gpu(model, config.recipe, classes, config.replicas, memory_bytes, stages)


def _images_per_s(
    config: schema.Config, model: schema.Model, multiply_adds: int, classes: int, device: torch.device
) -> float:
    limit = _GPU_LIMIT if device.type == "cuda" else _CPU_LIMIT
    recipe = probed_recipe(config.recipe, config.replicas, max(1, limit // multiply_adds))
    images, recomputes = recipe.global_batch, _recomputes(config, model, classes, device)
    network, side = build_model(model, classes), compute_cost(model, classes)[2]
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.recompute = recomputes
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, side, side, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (images,), generator=generator)
    batch = Batch(pixels.to(device), labels.to(device), np.arange(images))
    no_watchdog = cast(Watchdog, SimpleNamespace(waiting=nullcontext))  # no other rank is waited for
    job = schema.Job(kind="train", model=model, recipe=recipe)
    stepper = Stepper(
        job, Ranks(0, 1, device), states.initial_state(network, recipe), 1000, no_watchdog, Faults("file:///nowhere", 0)
    )
    steps, began = -1, 0.0  # the first step allocates memory
    while steps < 1 or time.perf_counter() - began < _STEPS_S:
        stepper.step(batch, False)
        stepper.outcomes()
        if device.type == "cuda":
            torch.cuda.synchronize()
        steps += 1
        began = began or time.perf_counter()
    speed = images * steps / (time.perf_counter() - began)
    return speed * (1 + 1 / STEP_PER_FORWARD) if recomputes else speed
