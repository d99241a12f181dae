"""What a training would need, before anything is started: sizes, work, and memory of each process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from conf import compose, schema
from models.experiments import transfer
from models.experiments.transfer import Cost
from models.paper import TABLE6_BY_SOURCE

_CLASSES = 1000  # the classifier is a small part of all this; its true width is known once the data are sharded


def lines(config: schema.Config) -> Iterator[str]:
    """A table of the configured variants, line by line, since counting a large one takes seconds.

    Memory is that of a step in float32 and in bfloat16: as configured, with activations computed again, and with the
    network on two processes that have one micro-batch between them.
    """
    yield f"{'network':<16} {'px':>4} {'params':>11} {'multiply-adds':>15} {'images':>7}   memory of a process, GB"
    yield f"{'':<49} {'at once':>7}   {'as configured':<19} {'recompute=true':<19} pipeline_stages=2"
    yield " " * 57 + "   " + "   ".join(["  fp32     bf16"] * 3)
    for name in config.variants:
        yield _line(config, dataclasses.replace(config.model, name=name))
    official = [name for name in config.transfer.sets or [config.transfer.data.source] if name in TABLE6_BY_SOURCE]
    if official:
        yield ""
        yield f"transfer to {', '.join(official)} ({config.transfer.protocol})"
        yield f"{'network':<16} {'jobs':>6} {'training images':>16} {'evaluated':>13} {'multiply-adds':>14}"
    for name in config.variants if official else ():
        model = dataclasses.replace(config.model, name=name)
        found = transfer.sum_costs([_transfer_cost(config.transfer, model, each) for each in official])
        images = f"{found.train_images:>16,} {found.eval_images:>13,}"
        yield f"{name:<16} {found.jobs:>6,} {images} {found.multiply_adds:>14.4g}"


def _transfer_cost(wanted: schema.Transfer, model: schema.Model, name: str) -> Cost:
    """Of a whole official set, by Table 6."""
    from models.networks.build import compute_cost

    data, whole = compose.compose([f"data={name}"]).data, TABLE6_BY_SOURCE[name]
    minival = whole.validation or round(whole.train * data.minival_share)
    _, multiply_adds, _ = compute_cost(model, whole.classes)
    return transfer.cost(wanted, whole.train - minival, minival, whole.true_test, multiply_adds)


def _line(config: schema.Config, model: schema.Model) -> str:
    from models.networks.build import compute_cost
    from models.training.memory import plan, slices_per_pass

    recipe, runtime = config.recipe, config.runtime
    processes = config.launch.nnodes * config.launch.nproc_per_node
    params, multiply_adds, resolution = compute_cost(model, _CLASSES)
    again = dataclasses.replace(recipe, recompute=True)
    ways = ((recipe, runtime.pipeline_stages, runtime.micro_batches), (again, 1, None), (recipe, 2, 1))
    memory = []
    for asked, stages, micro_batches in ways:
        replicas = max(1, processes // stages)
        both = (plan(model, asked, _CLASSES, replicas, stages, micro_batches, bf16) for bf16 in (False, True))
        memory.append(" ".join(f"{found.total / 1e9:8.2f}" for found in both))
    images = slices_per_pass(recipe, max(1, processes // runtime.pipeline_stages))
    images *= recipe.global_batch // recipe.logical_shards
    return f"{model.name:<16} {resolution:>4} {params:>11,} {multiply_adds:>15,} {images:>7,}   {'   '.join(memory)}"
