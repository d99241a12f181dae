"""Transfer learning: a trained network, fine-tuned and evaluated on other data sets under a protocol.

What failure must never look like: a network trained for days before a set turns out to lack a class. So all sets are
sharded, checked and counted first. One set that fails leaves the others alone and is named in the report's part.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from prefect import flow

from conf import schema
from conf.compose import OverrideError, compose, from_yaml, to_yaml
from flows.configure import configure, name_runs_by
from flows.shard import write_shards
from flows.train import train_network
from infra.errors import ConfigError
from models.experiments.transfer import GridTrial, TransferPlan, record_rung, result_of, select_best
from models.results import Point, RungResult, TransferResult
from tasks.dispatch import dispatch, fan_out
from tasks.register import fetch_registered
from tasks.shard import plan_shards
from tasks.supervise import JobRun
from tasks.train import name_job, short_name, train_to_rung
from tasks.train import train as train_task
from tasks.transfer import (
    Weights,
    announce,
    announce_time,
    final_job,
    plan_transfer,
    point_job,
    prune,
    record_transfer,
    set_overrides,
    start_grid,
)


@flow(name="transfer", flow_run_name=name_runs_by(lambda config, _: f"transfer {short_name(config.model.name)}"))
async def transfer(overrides: list[str], parent_run: str = "") -> list[TransferResult]:
    """Fine-tunes the network on each data set; trains it first if necessary.

    Args:
        overrides: Command-line overrides, e.g. ``["transfer=kornblith", "data@transfer.data=pets"]``.
        parent_run: Parent MLflow run.
    """
    config, overrides = configure(overrides)
    model, weights = await fetch_source(config)
    sets = [(words, replace(compose(words), model=model)) for words in set_overrides(config, overrides)]
    # Opens every source before any work starts.
    layouts = [await plan_shards(one.transfer.data, config.storage) for _, one in sets]
    shards = await asyncio.gather(
        *(write_shards(one.transfer.data, layout) for (_, one), layout in zip(sets, layouts, strict=True))
    )
    plans = [await plan_transfer(one, shard) for (_, one), shard in zip(sets, shards, strict=True)]
    announce(plans)
    source_run = ""
    if weights is None:
        source, _ = await train_network(config, parent_run)
        weights, source_run = (source.weights_uri, source.weights_sha256), source.mlflow_run
        announce_time(plans, source.images_per_s)
    calls = (
        partial(one_set, plan, words, weights, parent_run, source_run)
        for plan, (words, _) in zip(plans, sets, strict=True)
    )
    return await record_transfer(config, overrides, plans, await fan_out(config, calls))


async def fetch_source(config: schema.Config) -> tuple[schema.Model, Weights | None]:
    """The network that is fine-tuned; with its weights where the registry has them (``model_ref``).

    Raises:
        ConfigError: the registered network is another one than ``model``.
    """
    if config.model_ref is None:
        return config.model, None
    model, weights, exact = await fetch_registered(config.model_ref, config.storage)
    if model.name != config.model.name:
        raise ConfigError(f"model_ref {exact} is a {model.name}, model.name asks for {config.model.name}; give one")
    return model, weights


async def one_set(
    plan: TransferPlan, overrides: list[str], weights: Weights, parent_run: str, source_run: str
) -> TransferResult:
    """One network on one set: the grid, where there is one, then the chosen point."""
    config, tags = plan.config, {"role": "transfer", "source_run": source_run}
    chosen, run = plan.points[0], parent_run
    tried: list[GridTrial] = []
    if len(plan.points) > 1:
        run = await start_grid(plan, weights, parent_run)
        chosen, tried = await try_grid(plan, overrides, weights, run)
    final = await train_task(final_job(plan, chosen, weights), config, run, tags)
    return result_of(plan, tried, chosen, final)


async def try_grid(
    plan: TransferPlan, overrides: list[str], weights: Weights, run: str
) -> tuple[Point, list[GridTrial]]:
    """Successive halving: all points to the first rung, the better ones to the next; returns the best that finished."""
    tried = alive = [GridTrial(point) for point in plan.points]
    for epoch in (*plan.rungs, None):
        jobs = [point_job(plan, trial.point, weights, epoch) for trial in alive]
        calls = (partial(one_point, plan.config, overrides, job, run) for job in jobs)
        record_rung(alive, await fan_out(plan.config, calls))
        if epoch is not None:
            alive = prune(plan, alive, epoch)
    return select_best(plan, alive), tried


async def one_point(config: schema.Config, overrides: list[str], job: JobRun, run: str) -> RungResult:
    """One point of the grid to its rung, wherever jobs run."""
    request = {"job": to_yaml(job.job), "key": job.key, "job_uri": job.job_uri, "label": job.label}
    title = f"{job.label} to epoch {job.job.until_epoch or job.job.recipe.epochs}"
    standing: RungResult = await dispatch(finetune, config, overrides, title=title, parent_run=run, **request)
    return standing


def finetune_name(_: schema.Config, given: dict[str, Any]) -> str:
    """After the job and how far it goes."""
    job = from_yaml(schema.Job, given["job"])
    return f"{given['label']} to epoch {job.until_epoch or job.recipe.epochs}"


@flow(name="finetune", flow_run_name=name_runs_by(finetune_name))
async def finetune(
    overrides: list[str], job: str, key: str, job_uri: str, label: str, parent_run: str = ""
) -> RungResult:
    """A job that is described already: one point of a grid, to a rung or to its end.

    Args:
        overrides: Command-line overrides, which set where the job runs.
        job: The job as YAML.
        key: Name and digest of the job.
        job_uri: Run folder of the job.
        label: Display name.
        parent_run: Parent MLflow run.

    Raises:
        ConfigError: the parameters describe no job that this code made; whoever reaches Prefect can send them.
    """
    config, _ = configure(overrides)
    run = described_job(config, job, key, job_uri, label)
    return await train_to_rung(run, config, parent_run, {"role": "grid"})


def described_job(config: schema.Config, job: str, key: str, job_uri: str, label: str) -> JobRun:
    """Validates the untrusted parameters of a deployment and builds the job; raises the errors of ``finetune``."""
    try:
        described = from_yaml(schema.Job, job)
    except OverrideError as error:
        raise ConfigError(f"finetune: job: {error}") from error
    verb = "finetune" if described.init_weights_uri else "train"
    run = name_job(config, described, f"{verb}-{short_name(described.model.name)}-{described.data_name}", label)
    if described.kind != "train" or (run.key, run.job_uri) != (key, job_uri):
        raise ConfigError(f"finetune: key {key!r} and job_uri {job_uri!r} are not those of the job, {run.key!r}")
    return run
