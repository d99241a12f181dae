"""Every night: the registered champion, fine-tuned on the transfer set, registered, and promoted if better.

Its key is the digest of champion, data and recipe: a night without anything new finds last night's result and
registers nothing twice.
"""

from __future__ import annotations

from dataclasses import replace

from prefect import flow

from flows.configure import configure, name_runs_by, now
from flows.shard import ensure_shards
from models.results import EvalResult, Registered
from tasks.evaluate import evaluate
from tasks.jobs import evaluate_job, train_job
from tasks.promote import judge
from tasks.register import fetch_registered, register
from tasks.train import train as train_task


@flow(name="nightly", flow_run_name=name_runs_by(lambda config: f"nightly {config.nightly.model} {now()}"))
async def nightly(overrides: list[str]) -> Registered:
    """Fine-tunes ``nightly.model@champion`` on ``transfer.data``, evaluates, registers, promotes the better."""
    config, _ = configure(overrides)
    name = config.nightly.model
    model, weights, exact = await fetch_registered(f"{name}@champion", config.storage)
    shards = await ensure_shards(config.transfer.data, config.storage)
    fine_tuned = replace(config, model=model)
    job = train_job(fine_tuned, config.transfer.data, config.transfer.recipe, shards, weights)
    result = await train_task(job, fine_tuned, "", {"role": "nightly", "champion": exact})
    data = config.transfer.data
    registered = await register(f"{name}-{shards.name}", result, model, data, shards.manifest_uri)

    async def evaluate_version(ref: str) -> EvalResult:
        network, files, exact = await fetch_registered(ref, config.storage)
        on_new_data = replace(config, data=data)
        return await evaluate(evaluate_job(on_new_data, network, shards, files, exact), on_new_data, exact)

    return await judge(registered, shards, config.storage, config.nightly, evaluate_version)
