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
    """Run name: the network, unless the parent flow passed a label."""
    return str(given.get("label") or "") or f"train {short_name(config.model.name)}"


@flow(name="train", flow_run_name=name_runs_by(run_name))
async def train(overrides: list[str], parent_run: str = "", role: str = "train", label: str = "") -> TrainResult:
    """Trains or resumes one network, or returns its stored result.

    Args:
        overrides: Command-line overrides, e.g. ``["model=b3", "recipe.epochs=2"]``.
        parent_run: Parent MLflow run.
        role: Value of the tag ``role`` of the MLflow run.
        label: Display name; by default derived from the job.
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
