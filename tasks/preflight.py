"""Refuses before the first job of a reproduction or a study what one of its later steps would refuse."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from prefect import task

from conf import schema
from models.results import ShardResult
from tasks import policy
from tasks.batches import list_sections, named, recipe_of
from tasks.jobs import train_job
from tasks.shard import ShardPlan


@task(task_run_name="check networks", **policy.BOOKKEEPING)
async def check_networks(config: schema.Config, plan: ShardPlan) -> None:
    """Checks the networks and the photographs of a reproduction before its data set is written, which may take hours.

    Args:
        config: Configuration of the command.
        plan: Plan of ``config.data``.

    Raises:
        ConfigError: A network that cannot have so few pixels, maps of a network or registered model that does not exist
            or has other classes, a photograph that does not exist, or a registered model of others with the name of a
            variant.
        DataError: A photograph is damaged.
        NotFoundError: A package with public weights is not installed.
    """
    await asyncio.to_thread(_check_networks, config, plan)


def _check_networks(config: schema.Config, plan: ShardPlan) -> None:
    from infra.tracking import registry
    from models.networks import packaged
    from models.networks.build import compute_cost
    from tasks import classes
    from tasks.experiments import explain, photographs

    candidates = explain.build_candidates(config.explain)
    for name in config.variants:
        compute_cost(replace(config.model, name=name), len(plan.classes))
    made = {name.replace("_", "-") for name in config.variants}  # registered before the maps are drawn
    for name in sorted(made):
        registry.require_model_of_effnet(name)
    for candidate in candidates:
        if candidate.registered is not None and not _will_exist(candidate.registered, made, config.nightly):
            version = registry.resolve_version(candidate.registered)
            lists = classes.class_lists(version, plan)
            classes.require_rows(candidate.registered, plan, lists.model, lists.data)
    if config.photographs.networks:
        photographs.read(config.photographs)
        for name in config.photographs.networks:
            packaged.weights_path(name)


@task(task_run_name="check", **policy.BOOKKEEPING)
async def check_reproduction(
    config: schema.Config, sets: Sequence[schema.Config], data: ShardResult, transfer_data: Sequence[ShardResult]
) -> None:
    """Checks the search, the family, the maps and the transfer against the data.

    Args:
        config: Configuration of the command.
        sets: One configuration for each transfer set.
        data: Shards of ``config.data``.
        transfer_data: Shards of each transfer set.

    Raises:
        ConfigError: A single class, a batch that is larger than its split, or maps of an image that does not exist.
        DataError: A transfer set has a class without images.
    """
    await asyncio.to_thread(_check, config, sets, data, transfer_data)


def _check(
    config: schema.Config, sets: Sequence[schema.Config], data: ShardResult, transfer_data: Sequence[ShardResult]
) -> None:
    from tasks import transfer
    from tasks.experiments import explain

    for section in list_sections("reproduce", config):
        if section != "transfer":  # on data of its own, below
            with named(section):
                train_job(config, config.data, recipe_of(config, section), data, None)
    explain.read_images(config.explain, data)
    for one, shards in zip(sets, transfer_data, strict=True):
        with named("transfer"):
            transfer.plan(one, shards)


@task(task_run_name="check", **policy.BOOKKEEPING)
async def check_study(config: schema.Config, shards: Sequence[ShardResult]) -> None:
    """Checks the trainings, fine-tunings and searches of a study against the data, and the networks of the latency.

    Args:
        config: Configuration of the command.
        shards: Shards of ``config.data`` for each seed.

    Raises:
        ConfigError: A batch that is larger than its split, a network that does not exist or cannot have so few pixels,
            a grid on folds, or a search whose constraints B0 breaks or whose database cannot be opened.
        DataError: A class has no images in train or in val.
        TransientError: The database of the architecture search does not respond.
    """
    await asyncio.to_thread(_check_study, config, shards)


def _check_study(config: schema.Config, shards: Sequence[ShardResult]) -> None:
    from models.experiments.latency import list_networks
    from models.experiments.scaling_study import network_of
    from models.experiments.transfer import list_starts
    from models.networks.build import compute_cost
    from tasks import transfer
    from tasks.experiments import architecture

    list_networks(config.latency)
    for point in config.scaling.points:
        compute_cost(network_of(config.model, point), shards[0].classes)
    for section in list_sections("study", config):
        if section != "transfer":
            with named(section):
                train_job(config, config.data, recipe_of(config, section), shards[0], None)
    if config.transfer.network is not None:
        for options in list_starts(config.transfer):
            with named("transfer"):
                one = replace(config, transfer=replace(options, data=config.data))
                transfer.plan(one, shards[0], shards[: max(1, options.random_seeds)])
    architecture.open_search(config, shards[0])


def _will_exist(ref: str, made: Collection[str], options: schema.Nightly) -> bool:
    """Whether the reproduction itself gives a registered model this alias before its maps are drawn."""
    from infra.tracking.champions import CHALLENGER
    from infra.tracking.registry import CHAMPION

    name, separator, alias = re.split("([@/])", ref, maxsplit=1)
    given = (CHALLENGER,) if options.approval else (CHALLENGER, CHAMPION)  # a champion waits for a user's approval
    return name in made and separator == "@" and alias in given
