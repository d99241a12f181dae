"""Class activation maps of Figure 7: the baseline and its scaled versions on the same images.

What failure must never look like: a gallery that silently lacks a requested network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prefect import flow, task

from conf import schema
from flows.configure import configure, name_runs_by
from flows.evaluate import MatchedVersion, evaluate_matched, match_version
from flows.failures import report_failures
from flows.shard import without_accept, write_shards
from flows.train import train_network
from models.results import GalleryNetwork, GalleryResult, ShardResult
from tasks import policy
from tasks.experiments.explain import Candidate, list_candidates, record_gallery, start_gallery, train_config
from tasks.registry.register import fetch_registered
from tasks.shard import plan_shards
from tasks.tracked import finish_run_on_error


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
    data = without_accept(config.data)
    plan = await plan_shards(data, config.storage, 1)  # a single class has maps, too
    versions: dict[str, MatchedVersion] = {}  # accuracy and maps are of the same, reordered weights
    for one in selected:
        if one.registered is not None:
            fetched = await fetch_registered(one.registered, config.storage)
            versions[one.name] = await match_version(fetched, data.augment, plan, config.storage, overrides)
    shards = await write_shards(data, plan)
    run = await start_gallery(config, shards, parent_run)
    networks = (obtain_network(config, one, shards, run, versions.get(one.name)) for one in selected)
    async with finish_run_on_error(run):
        trained = await asyncio.gather(*networks, return_exceptions=True)
        failed = [one for one in trained if isinstance(one, BaseException)]
        if len(failed) == len(trained):
            raise failed[0]  # here, since a task would be repeated after it
        return await record_gallery(config, shards, run, selected, trained)


async def obtain_network(
    config: schema.Config, candidate: Candidate, shards: ShardResult, run: str, version: MatchedVersion | None
) -> GalleryNetwork:
    """One network with its weights: a registered version, or an ordinary training job."""
    if version is not None:
        evaluated = await evaluate_matched(config, version, shards)
        return candidate.with_registered(version.model, version.weights, version.augment, evaluated)
    request, title = train_config(config, candidate.model), f"explain {candidate.name}"
    result = await train_network(request, shards, run, "explain", title)
    return await asyncio.to_thread(candidate.with_training, result)
