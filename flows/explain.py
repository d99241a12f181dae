"""Class activation maps of Figure 7: the baseline and its scaled versions on the same images.

What failure must never look like: a gallery without a network that was asked for and without a word about it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from flows.train import train
from models.results import ShardResult
from tasks.class_names import check_classes
from tasks.dispatch import dispatch, fan_out
from tasks.explain import Candidate, candidates, record_gallery, start_gallery, train_overrides
from tasks.explain_gallery import GalleryNetwork
from tasks.register import fetch_registered
from tasks.train import evaluate, evaluate_job


@flow(name="explain", flow_run_name=name_runs_by(lambda config, _: f"explain {config.profile}"))
async def explain(overrides: list[str], parent_run: str = "") -> dict[str, Any]:
    """Trains, or finds, every network of ``explain.models``, and maps what each sees in some images of val.

    Returns:
        The report's part ``maps``.
    """
    config, overrides = configure(overrides)
    wanted = await candidates(config)
    shards = await ensure_shards(config.data, config.storage)
    run = await start_gallery(config, shards, parent_run)
    trained = await fan_out(config, (partial(one, config, overrides, each, shards, run) for each in wanted))
    return await record_gallery(config, shards, run, wanted, trained)


async def one(
    config: schema.Config, overrides: list[str], wanted: Candidate, shards: ShardResult, run: str
) -> GalleryNetwork:
    """One network with its weights: an ordinary training job, or a registered version."""
    if wanted.registered is not None:
        model, weights, exact = await fetch_registered(wanted.registered, config.storage)
        await check_classes(exact, shards)
        found = await evaluate(evaluate_job(config, model, shards, weights, exact), config, exact)
        return wanted.fetched(model, weights, found)
    asked = [*overrides, *train_overrides(config, wanted.model)]
    title = f"explain {wanted.name}"
    result = await dispatch(train, config, asked, title=title, parent_run=run, role="explain", label=title)
    return await asyncio.to_thread(wanted.trained, result)
