"""Class activation maps of Figure 7: the baseline and its scaled versions on the same images.

What failure must never look like: a gallery that silently lacks a requested network.
"""

from __future__ import annotations

import asyncio
from functools import partial

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from flows.train import train
from models.results import GalleryNetwork, GalleryResult, ShardResult
from tasks.class_names import check_classes
from tasks.dispatch import dispatch, fan_out
from tasks.explain import Candidate, candidates, record_gallery, start_gallery, train_overrides
from tasks.register import fetch_registered
from tasks.train import evaluate, evaluate_job


@flow(name="explain", flow_run_name=name_runs_by(lambda config, _: f"explain {config.profile}"))
async def explain(overrides: list[str], parent_run: str = "") -> GalleryResult:
    """Trains or reuses every network of ``explain.models``, and draws its maps of some val images.

    Returns:
        The networks, the images and the maps.
    """
    config, overrides = configure(overrides)
    selected = await candidates(config)
    shards = await ensure_shards(config.data, config.storage)
    run = await start_gallery(config, shards, parent_run)
    trained = await fan_out(config, (partial(one, config, overrides, candidate, shards, run) for candidate in selected))
    return await record_gallery(config, shards, run, selected, trained)


async def one(
    config: schema.Config, overrides: list[str], candidate: Candidate, shards: ShardResult, run: str
) -> GalleryNetwork:
    """One network with its weights: an ordinary training job, or a registered version."""
    if candidate.registered is not None:
        model, weights, exact = await fetch_registered(candidate.registered, config.storage)
        await check_classes(exact, shards)
        result = await evaluate(evaluate_job(config, model, shards, weights, exact), config, exact)
        return candidate.fetched(model, weights, result)
    request = [*overrides, *train_overrides(config, candidate.model)]
    title = f"explain {candidate.name}"
    result = await dispatch(train, config, request, title=title, parent_run=run, role="explain", label=title)
    return await asyncio.to_thread(candidate.trained, result)
