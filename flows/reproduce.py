"""The whole paper: shard, search, train B0..B7, register, transfer, map what networks see, report.

What failure must never look like: a report that hides a missing variant, or one bad variant, or a failed grid search,
that takes the others with it. Each runs to its end; failures are listed as missing in the report and fail the flow
last. What a later step would refuse is refused before the first job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from prefect import flow, task

from conf import schema
from conf.overrides import replace as replace_words
from flows.configure import configure, name_runs_by, now
from flows.explain import draw_gallery
from flows.failures import report_failures
from flows.photographs import map_photographs
from flows.register import register_network
from flows.search import search_grid
from flows.shard import without_accept, write_shards
from flows.train import train_network
from flows.transfer import transfer_network
from models.networks.build import check_names
from models.results import ShardResult, Summary
from tasks import policy
from tasks.preflight import check_networks, check_reproduction
from tasks.report.publish import publish
from tasks.reproduction import VariantOutcome, finish_reproduction, start_reproduction
from tasks.shard import plan_shards
from tasks.tracked import finish_run_on_error
from tasks.transfer import check_plans, set_configs


@flow(name="reproduce", flow_run_name=name_runs_by(lambda config: f"reproduce {config.profile} {now()}"))
@report_failures
async def reproduce(
    overrides: list[str],
    profile: str | None = None,
    data: str | None = None,
    epochs: int | None = None,
    began: float | None = None,
) -> Summary:
    """Reproduces the paper at the size of the profile.

    Args:
        overrides: Command-line overrides, e.g. ``["profile=laptop"]``.
        profile: Size of everything.
        data: Data set.
        epochs: Number of epochs.
        began: Unix time at which the user's command started; by default the start of the flow.
    """
    config, overrides = configure(overrides, profile=profile, data=data, epochs=epochs)
    check_names("variants", config.variants)
    sets = set_configs(config, overrides)
    started = await start_reproduction(config, sets, began)
    run = started.mlflow_run
    async with finish_run_on_error(run):
        data_sets = [without_accept(data) for data in (config.data, *(one.transfer.data for one in sets))]
        plans = [await plan_shards(data, config.storage, 2) for data in data_sets]
        await check_networks(config, plans[0])
        check_plans(plans[1:])
        shards, *transfer_shards = await asyncio.gather(*map(write_shards, data_sets, plans))
        await check_reproduction(config, sets, shards, transfer_shards)
        # The family is that of the paper, whatever the grid finds: it is trained also if the search fails.
        searched = (await asyncio.gather(search_grid(config, shards, run), return_exceptions=True))[0]
        family = (reproduce_variant(config, name, sets, overrides, shards, run) for name in config.variants)
        # Photographs need no job: they are mapped while jobs start and end, when a core idles.
        photographs = [map_photographs(config, run)] if config.photographs.networks else []
        ended = await asyncio.gather(*family, *photographs, return_exceptions=True)
        outcomes, seen = ended[: len(config.variants)], ended[len(config.variants) :]
        maps = (await asyncio.gather(draw_gallery(config, overrides, run), return_exceptions=True))[0]
        sharded = [shards, *transfer_shards]
        summary, failures = await finish_reproduction(config, started, sharded, searched, outcomes, maps, seen)
    await publish(config, summary, run)
    for failure in failures:
        raise failure
    return summary


@task(task_run_name="{name}", **policy.GROUP)
async def reproduce_variant(
    config: schema.Config,
    name: str,
    sets: Sequence[schema.Config],
    overrides: Sequence[str],
    shards: ShardResult,
    parent_run: str,
) -> VariantOutcome:
    """One member of the family: trained, registered, champion if it beats the one before, transferred."""
    variant = replace(config, model=replace(config.model, name=name))
    result = await train_network(variant, shards, parent_run)
    registered = await register_network(variant, name.replace("_", "-"), result, config.data, shards)
    # The network that was just trained is what is fine-tuned, whatever the profile sets for `effnet transfer`.
    variant = replace(variant, transfer=replace(config.transfer, network=None))
    transferred = await transfer_network(variant, sets, replace_words(overrides, [f"model.name={name}"]), parent_run)
    return VariantOutcome(result, registered, transferred)
