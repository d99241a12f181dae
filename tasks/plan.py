"""Estimates of a command before it starts: network sizes, memory per process, time, bytes, money, and its limits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf import compose, schema
from conf.overrides import replace
from conf.text import format_duration
from models.data.loading.order import check_batch
from models.data.shards.stored import find_last_result
from models.data.sources.catalog import DATA_SETS
from models.experiments import costs, full_run, processors
from models.experiments.processors import Processor
from models.experiments.work import COMMAND_S, JOB_S, Work, total_wall_s
from models.networks.build import compute_cost
from models.networks.memory import plan, slices_per_pass
from tasks import stored

ASSUMED_CLASSES = 1000  # of a folder, whose classes are known once it is sharded
_HOUR_S = 3600.0


def lines(config: schema.Config, verb: str = "reproduce") -> Iterator[str]:
    """Yields a table of the networks that a command names, line by line, since counting a baseline takes seconds.

    The networks have the classes of the configured data set, as in a training. Memory is that of one step of a process
    on a CPU and on a GPU, in the precision of the recipe: as configured, with recomputed activations, and with the
    network split over two processes that share one micro-batch.

    Raises:
        ConfigError: The global batch cannot be divided equally over the processes.
    """
    recipe = config.recipe
    check_batch(recipe.global_batch, recipe.batch_slices, config.replicas, samples=recipe.global_batch)
    classes, is_known = _count_classes(config)
    assumed = "" if is_known else ", assumed: the true number is known once the data are sharded"
    yield f"{config.data.name}: {classes:,} classes{assumed}"
    names = _list_networks(config, verb)
    if not names:
        return
    yield f"{'network':<16} {'px':>4} {'params':>11} {'multiply-adds':>15} {'images':>7}   memory of a process, GB"
    yield f"{'':<49} {'a pass':>7}   {'as configured':<19} {'recompute=true':<19} pipeline_stages=2"
    cpu, gpu = (f"{device} {'bf16' if bf16 else 'fp32'}" for device, bf16, _ in _devices(config))
    yield " " * 57 + "   " + "   ".join([f"{cpu:>8} {gpu:>8}"] * 3)
    for name in names:
        yield _format_row(config, dataclasses.replace(config.model, name=name), classes)


def _count_classes(config: schema.Config) -> tuple[int, bool]:
    """The number of classes of the configured data set, and whether it is known."""
    shards = stored.find_sharded(config, [config.data]).get(config.data.name)
    known = DATA_SETS[config.data.source].classes or (shards.classes if shards else 0)
    return known or ASSUMED_CLASSES, bool(known)


def _list_networks(config: schema.Config, verb: str) -> list[str]:
    one = [config.model.name]
    return {"reproduce": config.variants, "train": one, "transfer": one}.get(verb, [])


@dataclass(frozen=True)
class Costs:
    """What a command trains, without what the object store holds.

    Attributes:
        works: Its parts.
        gpu: Processor of the first estimate.
        core: Processor of the second one.
        notes: A line about each part that is unknown or counted otherwise.
    """

    works: tuple[Work, ...]
    gpu: Processor
    core: Processor
    notes: tuple[str, ...]


def count_costs(
    config: schema.Config, overrides: Sequence[str], verb: str = "reproduce", probed: Processor | None = None
) -> Costs:
    """Counts what a command trains; the arguments are those of ``describe_costs``."""
    sets = transfer_sets(config, overrides, verb)
    held = stored.look_up(config, costs.used_sets(config, sets, verb))
    gpu, core = processors.gpu(), processors.cpu()
    if probed is not None:
        gpu, core = (gpu, probed) if probed.name == core.name else (probed, core)
    gpu_bytes = gpu.memory_bytes or full_run.GPU_BYTES
    planned = costs.plan_trainings(config, sets, verb, held.contains, held.sharded, gpu_bytes)
    notes = [*held.remarks, *planned.unknown, *(f"stored results are unknown: {line}" for line in held.unknown)]
    if whole := costs.list_untracked(config, planned.works):
        notes.append(f"{' and '.join(whole)}: counted whole, stored results are found at the run")
    if verb == "study":
        notes.append("latency: measured image by image, and not counted")
    return Costs(planned.works, gpu, core, tuple(notes))


def to_json(
    config: schema.Config,
    overrides: Sequence[str],
    price: float | None,
    verb: str = "reproduce",
    probed: Processor | None = None,
) -> dict[str, Any]:
    """The networks and costs of a command as plain values; the arguments are those of ``describe_costs``."""
    check_batch(
        config.recipe.global_batch, config.recipe.batch_slices, config.replicas, samples=config.recipe.global_batch
    )
    counted = count_costs(config, overrides, verb, probed)
    classes, is_known = _count_classes(config)
    networks = []
    for name in _list_networks(config, verb):
        params, multiply_adds, resolution = compute_cost(dataclasses.replace(config.model, name=name), classes)
        networks.append({"name": name, "resolution": resolution, "params": params, "multiply_adds": multiply_adds})
    hours = {"gpu_hours": counted.gpu, "cpu_hours": counted.core}
    fields = ("name", "jobs", "done", "steps", "images", "evaluated", "multiply_adds")
    trainings = [
        {
            **{key: getattr(work, key) for key in fields},
            "stored_bytes": work.stored,
            **{key: work.seconds(one) / _HOUR_S for key, one in hours.items()},
        }
        for work in counted.works
    ]
    total = {key: sum(work.seconds(one) for work in counted.works) / _HOUR_S for key, one in hours.items()}
    return {
        "verb": verb,
        "data": {"name": config.data.name, "classes": classes if is_known else None},
        "networks": networks,
        "trainings": trainings,
        **total,
        "money": None if price is None else total["gpu_hours"] * price,
        "stored_bytes": sum(work.stored for work in counted.works),
        **{
            key: {"name": one.name, "source": one.source, "wall_s": total_wall_s(counted.works, one, config.launch)}
            for key, one in (("gpu", counted.gpu), ("cpu", counted.core))
        },
        "notes": list(counted.notes),
    }


def describe_costs(
    config: schema.Config,
    overrides: Sequence[str],
    price: float | None,
    verb: str = "reproduce",
    probed: Processor | None = None,
) -> Iterator[str]:
    """Yields a table of time, bytes and money of what a command trains, without what the object store holds.

    For the reproduction of ``profile=paper`` the gates before it and the accuracies that are accepted follow.

    Args:
        config: Configuration of the command.
        overrides: The words that it was composed of; those of ``transfer.data`` apply to every set of the transfer.
        price: Price of an hour of a GPU; None leaves out the money.
        verb: One of ``costs.VERBS``.
        probed: What ``probe`` returned, in place of a processor of its kind in the table.
    """
    counted = count_costs(config, overrides, verb, probed)
    works, gpu, core = counted.works, counted.gpu, counted.core
    done, jobs = sum(work.done for work in works), sum(work.jobs for work in works)
    left = f"without {done} of {done + jobs} jobs, which are stored" if done else "as if nothing were done yet"
    yield f"training of effnet {verb}, {left}"
    pair = f"{gpu.name:>9} {core.name:>9}"
    yield f"{'':<79} {'images/s of one':>19} {'hours of one':>19}"
    titles = f"{'jobs':>5} {'stored':>6} {'steps':>10} {'images':>14} {'evaluated':>12}"
    yield f"{'':<27} {titles} {pair} {pair} {'store, GB':>10}"
    for work in works:
        speeds = " ".join(f"{_format_speed(one.images_per_s(work.multiply_adds)):>9}" for one in (gpu, core))
        hours = " ".join(f"{work.seconds(one) / _HOUR_S:>9,.3f}" for one in (gpu, core))
        images = f"{work.images:>14,} {work.evaluated:>12,}"
        counts = f"{work.jobs:>5,} {work.done:>6,} {work.steps:>10,}"
        yield f"{work.name:<27} {counts} {images} {speeds} {hours} {work.stored / 1e9:>10.2f}"
    yield from counted.notes
    gpu_s, core_s = (sum(work.seconds(one) for work in works) for one in (gpu, core))
    money = "" if price is None else f", {gpu_s / _HOUR_S * price:,.2f} at {price:g} an hour"
    gigabytes = sum(work.stored for work in works) / 1e9
    cores = f"{core_s / _HOUR_S:,.1f} {core.name}-hours"
    yield f"in total   {gpu_s / _HOUR_S:,.1f} {gpu.name}-hours{money}; or {cores}; {gigabytes:,.1f} GB in the store"
    yield from _describe_wall_time(config, works, gpu, core)
    if config.profile == "paper" and verb == "reproduce" and config.data.source == "imagenet":
        gpu_hours = costs.family_gpu_hours(config)
        of_paper = {name: gpu_hours[name] for name in full_run.FULL_RUNS if name in gpu_hours}
        yield from full_run.describe(of_paper, config.recipe.epochs)


def _format_speed(images_per_s: float) -> str:
    """Two digits at least: a core trains the largest networks at less than an image per second."""
    return f"{images_per_s:,.0f}" if images_per_s >= 10 else f"{images_per_s:.2g}"


def _describe_wall_time(config: schema.Config, works: Sequence[Work], gpu: Processor, core: Processor) -> Iterator[str]:
    launch = config.launch
    busy = launch.jobs_at_once * launch.processes
    took = " or ".join(
        f"{format_duration(total_wall_s(works, one, launch))} on {one.available(busy)} x {one.name}"
        for one in (gpu, core)
    )
    at_once = "one job after another" if launch.jobs_at_once == 1 else f"{launch.jobs_at_once} jobs at a time"
    yield f"takes      {took}, {at_once}"
    for one in (gpu, core):
        yield f"{one.name:<10} {one.source}"
    yield (
        f"           with {JOB_S:g} s between jobs and {COMMAND_S:g} s for services and report; "
        "the speed is taken to grow with the processes"
    )


def probe(config: schema.Config, verb: str) -> Processor:
    """Measures how fast this machine trains the networks of a command.

    Raises:
        ConfigError: They are too large for a probe on a CPU.
        CapacityError: The GPU has too little memory for a step.
    """
    from models.training.probe import measure

    names = config.variants if verb == "reproduce" else [config.model.name]
    classes = DATA_SETS[config.data.source].classes or ASSUMED_CLASSES
    probed = measure(config, [dataclasses.replace(config.model, name=name) for name in names], classes)
    processor = processors.gpu() if probed.gpu else processors.cpu()
    name = probed.gpu or processor.name
    measured = dataclasses.replace(processor, name=name, source=probed.source, speeds=probed.speeds)
    return dataclasses.replace(measured, memory_bytes=probed.memory_bytes)


def transfer_sets(config: schema.Config, overrides: Sequence[str], verb: str = "transfer") -> list[schema.Data]:
    """The data set of ``transfer.data``, or every one of ``transfer.sets`` with the overrides of ``transfer.data``.

    None for a verb that fine-tunes on neither: composing the eight of ``profile=paper`` takes more than a second.
    """
    if not costs.uses_transfer_sets(verb):
        return []
    if not config.transfer.sets:
        return [config.transfer.data]
    return [
        compose.compose(replace(overrides, ["transfer.sets=[]", f"data@transfer.data={name}"])).transfer.data
        for name in config.transfer.sets
    ]


@dataclass(frozen=True)
class Estimate:
    """What a command takes on the processors of its jobs.

    Attributes:
        wall_s: Seconds from the command to its result.
        gpu_hours: Hours of GPUs; 0 on CPUs.
        unknown: A line about each part that cannot be counted, and is not in the sums.
    """

    wall_s: float
    gpu_hours: float
    unknown: tuple[str, ...]


def estimate(config: schema.Config, sets: Sequence[schema.Data], verb: str) -> Estimate:
    """Estimates a command on the kind of processor that its jobs have, as if nothing were done yet.

    Args:
        config: Configuration of the command.
        sets: The data sets of the transfer.
        verb: One of ``costs.VERBS``.
    """
    planned = costs.plan_trainings(
        config, sets, verb, sharded=stored.find_sharded(config, costs.used_sets(config, sets, verb))
    )
    processor = _processor(config)
    busy_s = sum(work.seconds(processor) for work in planned.works)
    wall_s = total_wall_s(planned.works, processor, config.launch)
    return Estimate(wall_s, busy_s / _HOUR_S if processor == processors.gpu() else 0.0, planned.unknown)


def time_left(
    config: schema.Config, overrides: Sequence[str], verb: str, statuses: Sequence[Mapping[str, Any]]
) -> float | None:
    """Estimates the seconds that a running command still takes: of what is not stored, less what its jobs have done.

    Args:
        config: Configuration of the command.
        overrides: The words that it was composed of.
        verb: Verb of the command.
        statuses: Last status of each of its jobs that run.

    Returns:
        Seconds; None if the verb is not estimated, or not all of it can be counted.
    """
    if verb not in costs.VERBS:
        return None
    sets = transfer_sets(config, overrides, verb)
    held = stored.look_up(config, costs.used_sets(config, sets, verb), find_last_result)
    planned = costs.plan_trainings(config, sets, verb, held.contains, held.sharded)
    if planned.unknown or held.unknown:
        return None
    wall_s = total_wall_s(planned.works, _processor(config), config.launch)
    training = [one for one in statuses if one.get("step", 0) > 0 and math.isfinite(one.get("eta_s", math.inf))]
    done_s: float = sum(one["eta_s"] * one["step"] / max(1, one["steps"] - one["step"]) for one in training)
    longest_s = max((float(one["eta_s"]) for one in training), default=0.0)
    return max(longest_s, wall_s - done_s / max(1, config.launch.jobs_at_once))


def _processor(config: schema.Config) -> Processor:
    """The kind of processor that the jobs of a command have."""
    elsewhere = config.launch.engine == "workpool" and config.budget.gpu_hours is not None  # on GPUs of other machines
    return processors.of_jobs(config.launch, elsewhere)


def exceeded_budget(config: schema.Config, overrides: Sequence[str], verb: str) -> str:
    """Says which limits of ``budget`` a command's estimate exceeds, with both numbers, or that there is no estimate.

    Empty if it exceeds none.
    """
    limits = (("hours", config.budget.hours), ("gpu_hours", config.budget.gpu_hours))
    if verb not in costs.VERBS or all(limit is None for _, limit in limits):
        return ""
    estimated = estimate(config, transfer_sets(config, overrides, verb), verb)
    hours = {"hours": estimated.wall_s / _HOUR_S, "gpu_hours": estimated.gpu_hours}
    over = [
        f"{hours[key]:,.2f} {key.replace('_', '-').replace('gpu', 'GPU')} exceed budget.{key}={limit:g}"
        for key, limit in limits
        if limit is not None and hours[key] > limit
    ]
    unknown = "; ".join(estimated.unknown)
    if over:
        return f"effnet {verb} is estimated: {' and '.join(over)}{f' (not counted: {unknown})' if unknown else ''}"
    return f"effnet {verb} cannot be compared with its budget ({unknown})" if unknown else ""


def _devices(config: schema.Config) -> tuple[tuple[str, bool, bool], tuple[str, bool, bool]]:
    """For CPU and GPU: the name, whether a step computes in bfloat16, and whether by the layers in C."""
    recipe = config.recipe
    cpu_bf16, gpu_bf16 = recipe.precision == "bf16", recipe.precision in ("bf16", "auto")
    synchronized = recipe.bn_groups == "sync" and config.launch.processes > 1  # the layers in C have their own norm
    return ("CPU", cpu_bf16, not (cpu_bf16 or synchronized)), ("GPU", gpu_bf16, False)


def _format_row(config: schema.Config, model: schema.Model, classes: int) -> str:
    recipe, runtime = config.recipe, config.runtime
    params, multiply_adds, resolution = compute_cost(model, classes)
    recomputed = dataclasses.replace(recipe, recompute=True)
    settings = ((recipe, runtime.pipeline_stages, runtime.micro_batches), (recomputed, 1, None), (recipe, 2, 1))
    memory = []
    for variant, stages, micro_batches in settings:
        replicas = max(1, config.launch.processes // stages)
        estimates = (
            plan(model, variant, classes, replicas, stages, micro_batches, bf16, in_c)
            for _, bf16, in_c in _devices(config)
        )
        memory.append(" ".join(f"{estimate.total / 1e9:8.2f}" for estimate in estimates))
    images = slices_per_pass(recipe, config.replicas)
    images *= recipe.global_batch // recipe.batch_slices
    return f"{model.name:<16} {resolution:>4} {params:>11,} {multiply_adds:>15,} {images:>7,}   {'   '.join(memory)}"
