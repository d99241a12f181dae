"""Class activation maps of Figure 7: the baseline and its scaled versions on the same images.

What failure must never look like: a gallery that silently lacks a requested network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from prefect import flow, task

from conf import schema
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from flows.shard import ensure_shards
from flows.train import train_network
from models.results import GalleryNetwork, GalleryResult, ShardResult
from tasks import policy
from tasks.classes import match_classes
from tasks.evaluate import evaluate as evaluate_task
from tasks.evaluate import registered_input
from tasks.experiments.explain import Candidate, list_candidates, record_gallery, start_gallery, train_config
from tasks.jobs import evaluate_job
from tasks.registry.register import fetch_registered
from tasks.tracked import finish_run_on_error

# Network, URI and sha256 of its weights with the classes in the order of the data set, ``NAME/VERSION``, its input, and
# what is assumed about its class names.
Fetched = tuple[schema.Model, tuple[str, str], str, schema.Augment, str]


@flow(name="explain", flow_run_name=name_runs_by(lambda config: f"explain {config.profile}"))
@report_failures
async def explain(overrides: list[str], profile: str | None = None, data: str | None = None) -> GalleryResult:
    """Trains or reuses every network of ``explain.models``, and draws its maps of some val images."""
    config, overrides = configure(overrides, profile=profile, data=data)
    return await draw_gallery(config, overrides)


@task(task_run_name="explain", **policy.GROUP)
async def draw_gallery(config: schema.Config, overrides: Sequence[str], parent_run: str = "") -> GalleryResult:
    """Trains or reuses the networks and draws the maps.

    Args:
        config: Configuration of the command.
        overrides: Overrides of the command.
        parent_run: Parent MLflow run.

    Returns:
        The networks, the images and the maps.
    """
    selected = await list_candidates(config)
    shards = await ensure_shards(config.data, config.storage, 1)  # a single class has maps, too
    fetched: dict[str, Fetched] = {}
    for one in selected:
        if one.registered is not None:
            model, weights, exact = await fetch_registered(one.registered, config.storage)
            # Also refuses other classes, before any training. Accuracy and maps are of the same, reordered weights.
            weights, assumed = await match_classes(weights, exact, shards, config.storage)
            augment = await registered_input(exact, config.data.augment, "data.augment", overrides)
            fetched[one.name] = model, weights, exact, augment, assumed
    run = await start_gallery(config, shards, parent_run)
    networks = (obtain_network(config, one, shards, run, fetched.get(one.name)) for one in selected)
    async with finish_run_on_error(run):
        trained = await asyncio.gather(*networks, return_exceptions=True)
        failed = [one for one in trained if isinstance(one, BaseException)]
        if len(failed) == len(trained):
            raise failed[0]  # here, since a task would be repeated after it
        return await record_gallery(config, shards, run, selected, trained)


async def obtain_network(
    config: schema.Config, candidate: Candidate, shards: ShardResult, run: str, registered: Fetched | None
) -> GalleryNetwork:
    """One network with its weights: a registered version, or an ordinary training job."""
    if registered is not None:
        model, weights, exact, augment, assumed = registered
        config = replace(config, data=replace(config.data, augment=augment))
        job = evaluate_job(config, model, shards, weights, exact)
        evaluated = replace(await evaluate_task(job, config, exact), assumed=assumed)
        return candidate.with_registered(model, weights, augment, evaluated)
    request, title = train_config(config, candidate.model), f"explain {candidate.name}"
    result = await train_network(request, shards, run, "explain", title)
    return await asyncio.to_thread(candidate.with_training, result)
