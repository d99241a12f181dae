"""Estimates of a training before it starts: network sizes, work, and memory per process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from conf import compose, schema
from models.data.sources.catalog import DATA_SETS
from models.experiments import transfer
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


def _transfer_cost(options: schema.Transfer, model: schema.Model, name: str) -> Cost:
    """Cost of transfer to a complete official data set, by Table 6."""
    data, official = compose.compose([f"data={name}"]).data, TABLE6_BY_SOURCE[name]
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
