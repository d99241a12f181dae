"""One network on the main data set: shards, then torchrun under supervision."""

from __future__ import annotations

from typing import Any

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from models.results import ShardResult, TrainResult
from tasks.train import short_name, train_job
from tasks.train import train as train_task


def run_name(config: schema.Config, given: dict[str, Any]) -> str:
    """After the network, unless the parent flow gave a label."""
    return str(given.get("label") or "") or f"train {short_name(config.model.name)}"


@flow(name="train", flow_run_name=name_runs_by(run_name))
async def train(overrides: list[str], parent_run: str = "", role: str = "train", label: str = "") -> TrainResult:
    """Trains, resumes or finds one network.

    Args:
        overrides: as on the command line, e.g. ``["model=b3", "recipe.epochs=2"]``.
        parent_run: MLflow run that this one is shown under.
        role: tag of the MLflow run.
        label: what people see; made from the job where it is not given.
    """
    config, _ = configure(overrides)
    result, _ = await train_network(config, parent_run, role, label)
    return result


async def train_network(
    config: schema.Config, parent_run: str, role: str = "train", label: str = ""
) -> tuple[TrainResult, ShardResult]:
    """The configured network on the configured data, with the shards it saw."""
    shards = await ensure_shards(config.data, config.storage)
    job = train_job(config, config.data, config.recipe, shards, None, label)
    return await train_task(job, config, parent_run, {"role": role}), shards
