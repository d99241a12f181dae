"""Estimates of a training before it starts: network sizes, work, and memory per process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache

from conf import compose, schema
from conf.text import format_duration
from models.data.sources.catalog import DATA_SETS
from models.experiments import costs, transfer
from models.networks.build import compute_cost
from models.paper import TABLE6_BY_SOURCE
from models.results import Cost
from models.training.memory import plan, slices_per_pass

ASSUMED_CLASSES = 1000  # of a folder, whose classes are known once it is sharded


def lines(config: schema.Config) -> Iterator[str]:
    """Yields a table of the configured variants line by line, since counting a baseline takes seconds.

    The networks have the classes of the configured data set, as in a training.
    Memory is that of one step in float32 and in bfloat16: as configured, with recomputed activations, and with the
    network split over two processes that share one micro-batch.
    """
    known = DATA_SETS[config.data.source].classes
    classes = known or ASSUMED_CLASSES
    assumed = "" if known else ", assumed: the true number is known once the data are sharded"
    yield f"{config.data.name}: {classes:,} classes{assumed}"
    yield f"{'network':<16} {'px':>4} {'params':>11} {'multiply-adds':>15} {'images':>7}   memory of a process, GB"
    yield f"{'':<49} {'a pass':>7}   {'as configured':<19} {'recompute=true':<19} pipeline_stages=2"
    yield " " * 57 + "   " + "   ".join(["  fp32     bf16"] * 3)
    for name in config.variants:
        yield _format_row(config, dataclasses.replace(config.model, name=name), classes)
    official = [name for name in config.transfer.sets or [config.transfer.data.source] if name in TABLE6_BY_SOURCE]
    if official:
        yield ""
        yield f"transfer to {', '.join(official)} ({config.transfer.protocol})"
        yield f"{'network':<16} {'jobs':>6} {'training images':>16} {'evaluated':>13} {'multiply-adds':>14}"
    for name in config.variants if official else ():
        model = dataclasses.replace(config.model, name=name)
        total = transfer.sum_costs([_transfer_cost(config.transfer, model, data_set) for data_set in official])
        images = f"{total.train_images:>16,} {total.eval_images:>13,}"
        yield f"{name:<16} {total.jobs:>6,} {images} {total.multiply_adds:>14.4g}"


def describe_costs(config: schema.Config, price: float | None) -> Iterator[str]:
    """Yields a table of time, bytes and money of everything that ``effnet reproduce`` trains, maps excluded.

    Args:
        config: Configuration of the command.
        price: Price of an hour of a GPU; None leaves out the money.
    """
    options = config.transfer
    sets = [_data_set(name) for name in options.sets] or [options.data]
    works, unknown = costs.plan_trainings(config, sets)
    gpu, core = costs.gpu(), costs.CPU_CORE
    yield "training of effnet reproduce, without its maps and as if nothing were done yet"
    titles = f"{'jobs':>5} {'steps':>10} {'images':>14} {f'{gpu.name}-hours':>11} {f'{core.name}-hours':>15}"
    yield f"{'':<27} {titles} {'store, GB':>10}"
    for work in works:
        hours = f"{work.seconds(gpu) / 3600:>11,.3f} {work.seconds(core) / 3600:>15,.3f}"
        yield f"{work.name:<27} {work.jobs:>5,} {work.steps:>10,} {work.images:>14,} {hours} {work.stored / 1e9:>10.2f}"
    yield from unknown
    gpu_s, core_s = (sum(work.seconds(one) for work in works) for one in (gpu, core))
    processes = config.launch.nnodes * config.launch.nproc_per_node
    money = "" if price is None else f", {gpu_s / 3600 * price:,.2f} at {price:g} an hour"
    stored = sum(work.stored for work in works) / 1e9
    cores = f"{core_s / 3600:,.1f} {core.name}-hours"
    yield f"in total   {gpu_s / 3600:,.1f} {gpu.name}-hours{money}; or {cores}; {stored:,.1f} GB in the store"
    startup_s = costs.STARTUP_S * sum(work.jobs for work in works)
    first, second = (format_duration(seconds / processes + startup_s) for seconds in (gpu_s, core_s))
    yield f"           {first} or {second} on {processes} of them with start-up, if the speed grows with their number"
    for one in (gpu, core):
        yield f"{one.name:<10} {one.source}"
    yield "           data loading and evaluation are not counted"


@cache
def _data_set(name: str) -> schema.Data:
    """Settings of a data set; composing them takes most of the time of a plan."""
    return compose.compose([f"data={name}"]).data


def _transfer_cost(options: schema.Transfer, model: schema.Model, name: str) -> Cost:
    """Cost of transfer to a complete official data set, by Table 6."""
    data, official = _data_set(name), TABLE6_BY_SOURCE[name]
    minival = official.validation or round(official.train * data.minival_share)
    _, multiply_adds, _ = compute_cost(model, official.classes)
    return transfer.cost(options, official.train - minival, minival, official.true_test, multiply_adds)


def _format_row(config: schema.Config, model: schema.Model, classes: int) -> str:
    recipe, runtime = config.recipe, config.runtime
    processes = config.launch.nnodes * config.launch.nproc_per_node
    params, multiply_adds, resolution = compute_cost(model, classes)
    recomputed = dataclasses.replace(recipe, recompute=True)
    settings = ((recipe, runtime.pipeline_stages, runtime.micro_batches), (recomputed, 1, None), (recipe, 2, 1))
    memory = []
    for variant, stages, micro_batches in settings:
        replicas = max(1, processes // stages)
        estimates = (plan(model, variant, classes, replicas, stages, micro_batches, bf16) for bf16 in (False, True))
        memory.append(" ".join(f"{estimate.total / 1e9:8.2f}" for estimate in estimates))
    images = slices_per_pass(recipe, max(1, processes // runtime.pipeline_stages))
    images *= recipe.global_batch // recipe.batch_slices
    return f"{model.name:<16} {resolution:>4} {params:>11,} {multiply_adds:>15,} {images:>7,}   {'   '.join(memory)}"
