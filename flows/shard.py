"""Images into WebDataset shards in the object store. A data set exists once its manifest does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from prefect import flow

from conf import schema
from conf.progress import Progress
from conf.text import logger
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from models.results import ShardResult
from tasks.shard import ShardPlan, plan_shards, write_group, write_manifest

log = logger()


@flow(name="shard", flow_run_name=name_runs_by(lambda config: f"shard {config.data.name}"))
@report_failures
async def shard(overrides: list[str], profile: str | None = None, data: str | None = None) -> ShardResult:
    """Shards the configured data set, or returns the existing shards.

    Args:
        overrides: Command-line overrides, e.g. ``["data=digits"]``.
        profile: Size of everything.
        data: Data set.
    """
    config, _ = configure(overrides, profile=profile, data=data)
    return await ensure_shards(config.data, config.storage, fewest_classes=1)


async def ensure_shards(data: schema.Data, storage: str, fewest_classes: int = 2) -> ShardResult:
    """One mapped task per group of shards, the manifest last; one look-up where all is there.

    Args:
        data: Data set.
        storage: Root of the object store.
        fewest_classes: Number of classes below which the set is refused before anything is written; a training has two.
    """
    data = without_accept(data)
    return await write_shards(data, await plan_shards(data, storage, fewest_classes))


async def ensure_folds(
    data: schema.Data, storage: str, seeds: int, first: ShardResult | None = None
) -> list[ShardResult]:
    """The shards of each of ``seeds`` trainings, which run over the folds of the data set; each fold is written once.

    Every fold has its own shards: they are shuffled within a split, and the splits of two folds differ.

    Args:
        data: Data set, with the fold of the first seed.
        storage: Root of the object store.
        seeds: Number of trainings.
        first: Shards of the first seed; None: they may have to be written.
    """
    folds = {} if first is None else {data.fold: first}
    by_seed = []
    for seed in range(seeds):
        fold = data.for_seed(seed)
        if fold.fold not in folds:
            folds[fold.fold] = await ensure_shards(fold, storage)
        by_seed.append(folds[fold.fold])
    if len({of.manifest_sha256 for of in folds.values()}) < len(folds):
        log.warning(
            "%s has a val of its own, which data.folds=%d does not divide: all seeds have that val",
            data.name,
            data.folds,
        )
    return by_seed


def without_accept(data: schema.Data) -> schema.Data:
    """Returns data settings without ``data.accept``, which is said: only a night judges, and so accepts, versions."""
    if data.accept:
        names = ", ".join(data.accept)
        log.warning(
            "data.accept=[%s] has no effect here: only effnet nightly reads it, as transfer.data.accept; the images "
            "stay withheld",
            names,
        )
    return replace(data, accept=[])


async def write_shards(data: schema.Data, plan: ShardPlan) -> ShardResult:
    """The shards of a plan: all groups in parallel, the manifest last."""
    if plan.done is not None:
        return plan.done
    progress = Progress(f"shards of {data.name} written", sum(map(len, plan.groups)))

    async def write(numbers: list[int]) -> None:
        await write_group(data, plan.root, numbers, plan.version)
        progress.add(len(numbers))

    await asyncio.gather(*map(write, plan.groups))
    return await write_manifest(data, plan.root, plan.version)
