"""Transfer learning: a trained network, fine-tuned and evaluated on another data set."""

from __future__ import annotations

from prefect import flow

from conf.compose import compose
from flows.shard import ensure_shards
from flows.train import trained
from models.results import TrainResult
from tasks.train import train as train_task
from tasks.train import train_job


@flow(name="transfer")
async def transfer(overrides: list[str], parent_run: str = "") -> TrainResult:
    """Fine-tunes the configured network on ``transfer.data``; trains it first where that is not done yet."""
    config = compose(overrides)
    source, _ = await trained(config, parent_run)
    shards = await ensure_shards(config.transfer.data, config.storage)
    job = train_job(
        config, config.transfer.data, config.transfer.recipe, shards, (source.weights_uri, source.weights_sha256)
    )
    return await train_task(job, config, parent_run, {"role": "transfer", "source_run": source.mlflow_run})
