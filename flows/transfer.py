"""Transfer learning: a trained network, fine-tuned and evaluated on other data sets under a protocol.

What failure must never look like: a network trained for days before a set turns out to lack a class. So all sets are
sharded, checked and counted first. One set that fails leaves the others alone and is named in the report's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from prefect import flow, task

from conf import schema
from flows.configure import configure, describe_command, name_runs_by
from flows.failures import report_failures
from flows.photographs import obtain_network
from flows.register import register_network
from flows.shard import ensure_folds, ensure_shards, without_accept, write_shards
from flows.train import train_network
from infra.errors import ConfigError
from models.experiments.transfer import (
    GridTrial,
    TransferPlan,
    check_source,
    record_rung,
    result_of,
    select_best,
    with_side,
)
from models.results import Point, TrainResult, TransferResult
from tasks import policy
from tasks.artifacts import link_run
from tasks.evaluate import registered_input
from tasks.jobs import short_name
from tasks.registry.register import fetch_registered, require_name
from tasks.shard import plan_shards
from tasks.tracked import finish_run_on_error
from tasks.train import train as train_task
from tasks.train import train_to_rung
from tasks.transfer import (
    Weights,
    announce,
    announce_time,
    check_plans,
    compare_with_random,
    final_job,
    finish_grid,
    plan_transfer,
    point_job,
    prune,
    record_transfer,
    set_configs,
    start_grid,
)


@flow(name="transfer", flow_run_name=name_runs_by(lambda config: f"transfer {short_name(config.model.name)}"))
@report_failures
async def transfer(
    overrides: list[str],
    profile: str | None = None,
    model: str | None = None,
    data: str | None = None,
    epochs: int | None = None,
) -> list[TransferResult]:
    """Fine-tunes the network on each data set; trains it first if necessary.

    Args:
        overrides: Command-line overrides, e.g. ``["transfer=kornblith", "data@transfer.data=pets"]``.
        profile: Size of everything.
        model: Network.
        data: Data set.
        epochs: Number of epochs.
    """
    config, overrides = configure(overrides, profile=profile, model=model, data=data, epochs=epochs)
    results = await transfer_network(config, set_configs(config, overrides), overrides)
    for result in results:
        await link_run(result.mlflow_run)
    return results


@task(task_run_name="transfer {config.model.name}", **policy.GROUP)
async def transfer_network(
    config: schema.Config, sets: Sequence[schema.Config], overrides: Sequence[str], parent_run: str = ""
) -> list[TransferResult]:
    """Fine-tunes ``config.model`` on each data set; trains it first if necessary.

    Args:
        config: Configuration of the command.
        sets: One configuration for each data set, which is its ``transfer.data``.
        overrides: Overrides of the command that makes this result, for the report.
        parent_run: Parent MLflow run.
    """
    if config.register is not None:
        await require_name(config.register)
    model, weights, exact = await fetch_source(config)
    model = with_side(model, config.transfer.resolution)
    sets = [await with_source(one, model, exact, overrides) for one in sets]
    sets = [replace(one, transfer=replace(one.transfer, data=without_accept(one.transfer.data))) for one in sets]
    # Opens every source before any work starts.
    layouts = [await plan_shards(one.transfer.data, config.storage, 2) for one in sets]
    check_plans(layouts)
    shards = await asyncio.gather(
        *(write_shards(one.transfer.data, layout) for one, layout in zip(sets, layouts, strict=True))
    )
    seeds = max(1, config.transfer.random_seeds)
    folds = [
        await ensure_folds(one.transfer.data, config.storage, seeds, shard)
        for one, shard in zip(sets, shards, strict=True)
    ]
    plans = [await plan_transfer(*one) for one in zip(sets, shards, folds, strict=True)]
    alone = not parent_run  # a reproduction has said at its start how long all of it takes
    if alone:
        announce(plans)
    source_run = ""
    if weights is None:
        source = await train_network(config, await ensure_shards(config.data, config.storage), parent_run)
        weights, source_run = (source.weights_uri, source.weights_sha256), source.mlflow_run
        if alone:
            announce_time(plans, source.images_per_s)
    calls = (fine_tune(plan, weights, parent_run, source_run) for plan in plans)
    command = describe_command("transfer", overrides)
    results = await asyncio.gather(*calls, return_exceptions=True)
    await record_transfer(config, command, plans, results)
    for result in results:
        if isinstance(result, BaseException):
            raise result  # here, since a task would be repeated after it
    return [result for result in results if isinstance(result, TransferResult)]


async def with_source(
    config: schema.Config, model: schema.Model, exact: str | None, overrides: Sequence[str]
) -> schema.Config:
    """The configuration of a set with the network, and the crop and interpolation that it was registered with."""
    data = config.transfer.data
    if exact is not None:
        data = replace(data, augment=await registered_input(exact, data.augment, "transfer.data.augment", overrides))
    return replace(config, model=model, transfer=replace(config.transfer, data=data))


async def fetch_source(config: schema.Config) -> tuple[schema.Model, Weights | None, str | None]:
    """The network that is fine-tuned; with weights where it is not trained, and ``NAME/VERSION`` of ``model_ref``.

    A network of a Python package comes without that name, since it is trained on the crops of ``transfer.data``.

    Raises:
        ConfigError: The registered network is another one than ``model``, or two settings name a network.
        NotFoundError: The package of the network is not installed.
    """
    check_source(config)
    if config.transfer.network is not None:
        public = await obtain_network(config, config.transfer.network)
        return public.model, public.weights, None
    if config.model_ref is None:
        return config.model, None, None
    model, weights, exact = await fetch_registered(config.model_ref, config.storage)
    if model.name != config.model.name:
        raise ConfigError(
            f"model_ref {exact} is a {model.name}, but model.name is {config.model.name}; give one of them"
        )
    return model, weights, exact


async def fine_tune(plan: TransferPlan, weights: Weights, parent_run: str, source_run: str) -> TransferResult:
    """One network on one set: the grid, where there is one, then the chosen point."""
    config, seeds = plan.config, plan.config.transfer.random_seeds
    grid_run = await start_grid(plan, weights, parent_run) if len(plan.points) > 1 else ""
    async with finish_run_on_error(grid_run):
        tried: list[GridTrial] = []
        chosen = plan.points[0]
        if grid_run:
            chosen, tried = await try_grid(plan, weights, grid_run)
        tuned = [final_job(plan, chosen, weights, seed) for seed in range(max(1, seeds))]
        scratch = [final_job(plan, chosen, None, seed) for seed in range(seeds)]
        tags = {"role": "transfer", "source_run": source_run}
        calls = (train_task(job, config, grid_run or parent_run, tags) for job in (*tuned, *scratch))
        ended = await asyncio.gather(*calls, return_exceptions=True)
        if failed := [result for result in ended if isinstance(result, BaseException)]:
            raise failed[0]
        finals = [result for result in ended if isinstance(result, TrainResult)]
        result = result_of(plan, tried, chosen, finals[0])
    if grid_run:
        await finish_grid(plan, grid_run, result)
    if seeds:
        result = await compare_with_random(plan, result, finals[:seeds], finals[seeds:])
    if config.register is None:
        return result
    registered = await register_network(config, config.register, finals[0], config.transfer.data, plan.shards)
    return replace(result, registered=registered)


async def try_grid(plan: TransferPlan, weights: Weights, run: str) -> tuple[Point, list[GridTrial]]:
    """Successive halving: all points to the first rung, the better ones to the next; returns the best that finished."""
    tried = alive = [GridTrial(point) for point in plan.points]
    for epoch in (*plan.rungs, None):
        jobs = [point_job(plan, trial.point, weights, epoch) for trial in alive]
        calls = (train_to_rung(job, plan.config, run, {"role": "grid"}) for job in jobs)
        record_rung(alive, await asyncio.gather(*calls, return_exceptions=True))
        if epoch is not None:
            alive = prune(plan, alive, epoch)
    return select_best(plan, alive), tried
