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
from models.training.checkpoints import state as states
from models.training.distributed import Ranks
from models.training.step import Stepper
from models.training.supervision.faults import Faults
from models.training.supervision.watchdog import Watchdog

_PROBED = 3  # networks: the smallest, the middle one, the largest; the others are interpolated
_STEPS_S = 0.5  # time of the measured steps of one network
_CPU_LIMIT = 2_000_000_000  # multiply-adds of a batch, which take about a second per step on a core
_GPU_IMAGES = 128  # of a batch, beyond which images per second barely grow


@dataclass(frozen=True)
class Probe:
    """Measured training speeds of one process.

    Attributes:
        gpu: Name of the GPU; empty for a CPU core.
        source: What was measured.
        speeds: Multiply-adds of an image and images per second, by multiply-adds.
    """

    gpu: str
    source: str
    speeds: tuple[tuple[int, float], ...]


def measure(config: schema.Config, models: Sequence[schema.Model], classes: int) -> Probe:
    """Measures the training speed of one process on this machine's GPU, or else on one of its cores.

    Args:
        config: Configuration with recipe and launch.
        models: Networks, of which at most three are trained for half a second each.
        classes: Number of classes.

    Raises:
        ConfigError: Every network is too large for a probe on a CPU.
        CapacityError: The GPU has too little memory.
    """
    sizes = {compute_cost(model, classes)[1]: model for model in models}
    on_gpu = torch.cuda.is_available()
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
    return Probe(shorten(torch.cuda.get_device_name()) if on_gpu else "", source, speeds)


def shorten(name: str) -> str:
    """``NVIDIA H100 80GB HBM3`` -> ``H100``."""
    model = re.search(r"[A-Z]*\d+\w*", name)
    return model[0] if model else name


def _images_per_s(
    config: schema.Config, model: schema.Model, multiply_adds: int, classes: int, device: torch.device
) -> float:
    limit = _GPU_IMAGES if device.type == "cuda" else max(1, _CPU_LIMIT // multiply_adds)
    images = min(limit, max(1, config.recipe.global_batch // config.recipe.batch_slices))
    recipe = replace(config.recipe, global_batch=images, batch_slices=1, slices_per_pass=None, warmup_epochs=0.0)
    network, side = build_model(model, classes), compute_cost(model, classes)[2]
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
    return images * steps / (time.perf_counter() - began)
