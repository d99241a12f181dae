"""Checks before networks of the paper are trained on ImageNet: what this machine has, and imported weights."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from prefect import task

from conf import schema
from conf.experiments import ported_network
from conf.text import logger
from infra import machine
from infra.errors import ConfigError
from models.paper import PORTED_TOP1
from models.results import EvalResult, GateCheck
from tasks import policy

log = logger()
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
REQUIRED = ("efficientnet_b0", "efficientnet_b3", "efficientnet_b7")  # weights that must meet their published top-1
VAL_IMAGES = 50_000
IMAGENET_BYTES = 154.6e9  # of the JPEGs: ILSVRC2012_img_train.tar has 147.9 GB, ILSVRC2012_img_val.tar 6.7 GB
CHECKPOINT_FLOATS = 4  # per parameter: weights, average, and two of the optimizer, in float32
GB = 1e9


@task(task_run_name="check this machine", **policy.BOOKKEEPING)
async def check_machine(config: schema.Config) -> list[GateCheck]:
    """Checks GPUs, their memory, the cores of the loader and the disk space, the cheapest first."""
    return await asyncio.to_thread(_check_machine, config)


def _check_machine(config: schema.Config) -> list[GateCheck]:
    from models.training import capacity

    gpus = capacity.gpu_bytes()
    checks = [check_gpus(config, gpus), check_memory(config, gpus), check_space(config)]
    side = _largest_rate(config)[2]
    return [*checks, check_loader(config, capacity.image_cpu_s(config.data.augment, side), machine.cores())]


def check_gpus(config: schema.Config, gpus: list[int]) -> GateCheck:
    """Compares the number of GPUs with the processes of a training. ``gpus``: their memory in bytes."""
    needed = config.launch.nproc_per_node
    text = f"{len(gpus)} GPUs for launch.nproc_per_node={needed} processes"
    return GateCheck("GPUs", PASSED if len(gpus) >= needed else FAILED, text)


def check_memory(config: schema.Config, gpus: list[int]) -> GateCheck:
    """Compares the planned memory of a step in bfloat16, of every variant, with the smallest GPU.

    A training recomputes activations where they do not fit (``models/training/capacity.py``), and so does this plan.
    """
    from models.networks.memory import USABLE, exceeds_gpu, plan

    if not gpus:
        return GateCheck("memory", NOT_RUN, "no GPU")
    stages, micro_batches = config.runtime.pipeline_stages, config.runtime.micro_batches
    limit = USABLE * min(gpus) / GB
    planned, recomputed = {}, {}
    for name in config.variants:
        whole = plan(
            _network(config, name), config.recipe, 1000, config.replicas, stages, micro_batches, bf16=True
        ).total
        planned[name] = whole / GB
        if exceeds_gpu(whole, min(gpus), stages):
            recipe = replace(config.recipe, recompute=True)
            planned[name] = plan(_network(config, name), recipe, 1000, config.replicas, bf16=True).total / GB
            recomputed[name] = whole / GB
    name, largest = max(planned.items(), key=lambda item: item[1])
    text = f"{name} needs {largest:.1f} GB, {limit:.1f} GB may be planned ({USABLE:.0%} of the smallest GPU)"
    for one, whole_gb in recomputed.items():
        text += f"; {one} recomputes activations: {planned[one]:.1f} GB, {whole_gb:.1f} without"
    if largest <= limit:
        return GateCheck("memory", PASSED, text)
    over = ", ".join(f"{key} {value:.1f} GB" for key, value in planned.items() if value > limit)
    return GateCheck("memory", FAILED, f"{text}; too few for {over}: more recipe.batch_slices, or pipeline stages")


def check_loader(config: schema.Config, image_cpu_s: float, cores: int) -> GateCheck:
    """Compares the cores that keep all GPUs busy with those of this machine.

    Args:
        config: Processes and variants.
        image_cpu_s: CPU time of one core for one training image, in seconds.
        cores: Number of cores.
    """
    from models.experiments.full_run import GPU

    name, rate, side = _largest_rate(config)
    needed = rate * image_cpu_s
    text = (
        f"{rate:,.0f} images/s of {name} on {config.launch.nproc_per_node} {GPU} take {needed:.0f} cores, this "
        f"machine has {cores} ({1e3 * image_cpu_s:.2f} ms of a core for an image of {side} px)"
    )
    return GateCheck("loader", PASSED if cores >= needed else FAILED, text)


def _largest_rate(config: schema.Config) -> tuple[str, float, int]:
    """The variant that reads the most images per second on all processes of a machine, the rate, and its side."""
    from models.experiments.full_run import FULL_RUNS
    from models.networks.build import resolve_architecture

    known = [name for name in config.variants if name in FULL_RUNS]
    if not known:
        raise ConfigError(f"variants: the speed of none of {', '.join(config.variants)} is known")
    name = max(known, key=lambda one: FULL_RUNS[one].images_per_s)
    rate = FULL_RUNS[name].images_per_s * config.launch.nproc_per_node
    return name, rate, resolve_architecture(_network(config, name)).resolution


def check_space(config: schema.Config) -> GateCheck:
    """Compares the space of shards, checkpoints and cache with the disks of this machine.

    What the run folder holds already counts as free, because it is part of what is needed. Stores on other machines
    are not checked.
    """
    from models.networks.build import compute_cost

    run_dir = Path(config.run_dir).resolve()
    needed = {run_dir: min(config.runtime.cache_gb * GB, IMAGENET_BYTES)}
    local = config.storage.startswith("file://")
    if local or config.services.s3 == "embedded":
        folder = Path(config.storage.removeprefix("file://")) if local else run_dir
        params = sum(compute_cost(_network(config, name), 1000)[0] for name in config.variants)
        checkpoints = 4 * CHECKPOINT_FLOATS * params * config.recipe.keep_checkpoints
        needed[folder] = needed.get(folder, 0.0) + IMAGENET_BYTES + checkpoints
    disks: dict[int, list[Path]] = {}
    for folder in needed:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        disks.setdefault(there.stat().st_dev, []).append(folder)
    lines, outcome = [], PASSED
    for folders in disks.values():
        size, held = sum(needed[folder] for folder in folders), _bytes_in(folders)
        there = next(path for path in (folders[0], *folders[0].parents) if path.exists())
        available = shutil.disk_usage(there).free + held
        names = " and ".join(map(str, folders))
        lines.append(f"{names} needs {size / GB:.0f} GB, {available / GB:.0f} GB are free or in it already")
        outcome = outcome if available >= size else FAILED
    return GateCheck("disk space", outcome, "; ".join(lines))


def _bytes_in(folders: Sequence[Path]) -> int:
    """Bytes of the files in folders, counted once where one folder is in another; files may vanish meanwhile."""
    held = 0
    for path in {path for folder in folders for path in folder.rglob("*")}:
        with suppress(FileNotFoundError):
            held += path.stat().st_size if path.is_file() else 0
    return held


def _network(config: schema.Config, name: str) -> schema.Model:
    return replace(config.model, name=name)


def missing_weights(config: schema.Config) -> list[GateCheck]:
    """A check that was not run for every network of ``REQUIRED`` without weights."""
    given = {ported_network(path) for path in config.gate.weights}
    return [
        GateCheck(
            f"weights of {name}", NOT_RUN, f"gate.weights has no tf_{name}_aa-*.pth (top-1 {PORTED_TOP1[name]:.2f} %)"
        )
        for name in REQUIRED
        if name not in given
    ]


def check_accuracy(path: str, result: EvalResult, tolerance: float) -> GateCheck:
    """Compares the top-1 of imported weights with the published number.

    Args:
        path: File of the weights.
        result: Their evaluation, which must be of all 50,000 images.
        tolerance: Points by which the two may differ.
    """
    network = str(ported_network(path))
    published = PORTED_TOP1[network]
    text = f"{result.top1:.2f} % of {result.n:,} images, published {published:.2f} %, tolerance {tolerance:g}"
    if result.n != VAL_IMAGES:
        return GateCheck(f"weights of {network}", FAILED, f"{text}: ImageNet has {VAL_IMAGES:,} validation images")
    agrees = abs(result.top1 - published) <= tolerance + 1e-9
    return GateCheck(f"weights of {network}", PASSED if agrees else FAILED, text)
