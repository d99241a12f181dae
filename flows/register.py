"""A finished training job into the registry: its weights become a version, and champion if they pass the gate.

What failure must never look like: a version whose numbers are those of another job, or a job that is trained again
because someone wanted its weights. So the run folder is read and never written, and a job without a result is refused.
"""

from __future__ import annotations

from dataclasses import replace

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by, now
from flows.evaluate import evaluate_version
from flows.failures import report_failures
from models.results import EvalResult, Registered, ShardResult, TrainResult
from tasks.artifacts import link_version
from tasks.evaluate import registered_input
from tasks.registry import register as registration
from tasks.registry.finished import find_finished_job, name_model
from tasks.registry.promote import judge


@flow(name="register", flow_run_name=name_runs_by(lambda config: f"register {config.register or ''} {now()}"))
@report_failures
async def register(overrides: list[str], job: str, profile: str | None = None) -> Registered:
    """Registers the weights of a finished training job.

    Args:
        overrides: Command-line overrides, e.g. ``["register=my-model"]``; the default name is that of the network,
            with the data set behind it for a fine-tuned network.
        job: The job's key or the beginning of it, id or name of its MLflow run, or its run folder.
        profile: Size of everything.
    """
    config, _ = configure(overrides, profile=profile)
    done = await find_finished_job(job, config)
    config = replace(config, model=done.job.model)
    name = name_model(config.register, done.job, done.data.frozen_val)
    registered = await register_network(config, name, done.result, done.data, done.shards)
    await link_version(registered.name, registered.version)
    return registered


async def register_network(
    config: schema.Config, name: str, result: TrainResult, data: schema.Data, shards: ShardResult
) -> Registered:
    """Registers a trained network; it becomes champion of ``name`` if it passes the gate.

    Args:
        config: Configuration of the command, with the network.
        name: Name of the registered model.
        result: Result of the training.
        data: The data set that it was trained on.
        shards: Shards of ``data``.
    """
    registered = await registration.register(name, result, config.model, data, shards.manifest_uri, config.storage)
    return await judge_version(config, registered, data, shards)


async def judge_version(
    config: schema.Config, registered: Registered, data: schema.Data, shards: ShardResult
) -> Registered:
    """Makes a version champion of its name if it passes the gate on the val split of ``shards``, those of ``data``."""

    async def evaluate_ref(ref: str) -> EvalResult:
        fetched = await registration.fetch_registered(ref, config.storage)
        augment = await registered_input(fetched[2], data.augment, "data.augment", ())
        return await evaluate_version(replace(config, data=replace(data, augment=augment)), fetched, shards)

    return await judge(registered, shards, config.storage, config.nightly, evaluate_ref)
