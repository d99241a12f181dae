"""One network on the main data set: shards, then torchrun under supervision."""

from __future__ import annotations

from dataclasses import replace

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from flows.register import register_network
from flows.shard import ensure_shards
from models.results import ShardResult, TrainResult
from tasks import train as tasks
from tasks.artifacts import link_run, link_version
from tasks.jobs import short_name, train_job
from tasks.registry.register import require_name


@flow(name="train", flow_run_name=name_runs_by(lambda config: f"train {short_name(config.model.name)}"))
@report_failures
async def train(
    overrides: list[str],
    profile: str | None = None,
    model: str | None = None,
    data: str | None = None,
    epochs: int | None = None,
) -> TrainResult:
    """Trains or resumes one network, or returns its stored result; with ``register=NAME`` it is registered.

    Args:
        overrides: Command-line overrides, e.g. ``["model=b3", "recipe.epochs=2"]``.
        profile: Size of everything.
        model: Network.
        data: Data set.
        epochs: Number of epochs.
    """
    config, _ = configure(overrides, profile=profile, model=model, data=data, epochs=epochs)
    if config.register is not None:
        await require_name(config.register)
    shards = await ensure_shards(config.data, config.storage)
    result = await train_network(config, shards)
    await link_run(result.mlflow_run)
    if config.register is None:
        return result
    registered = await register_network(config, config.register, result, config.data, shards)
    await link_version(registered.name, registered.version)
    return replace(result, registered=registered)


async def train_network(
    config: schema.Config, shards: ShardResult, parent_run: str = "", role: str = "train", label: str = ""
) -> TrainResult:
    """Trains ``config.model`` on the shards by ``config.recipe``.

    Args:
        config: Configuration of the job.
        shards: Shards of ``config.data``.
        parent_run: Parent MLflow run.
        role: Value of the tag ``role`` of the MLflow run.
        label: Display name; by default derived from the job.
    """
    job = train_job(config, config.data, config.recipe, shards, None, label)
    return await tasks.train(job, config, parent_run, {"role": role})
