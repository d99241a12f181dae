"""A registered model on the validation split, every sample counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from flows.shard import ensure_shards
from infra.errors import ConfigError
from models.results import EvalResult, ShardResult
from tasks.artifacts import link_run
from tasks.classes import match_classes
from tasks.evaluate import evaluate as evaluate_task
from tasks.evaluate import registered_input, track_evaluation
from tasks.jobs import JobRun, evaluate_job
from tasks.registry.register import fetch_registered


@flow(name="evaluate", flow_run_name=name_runs_by(lambda config: f"evaluate {config.model_ref or ''}".strip()))
@report_failures
async def evaluate(
    overrides: list[str], profile: str | None = None, model: str | None = None, data: str | None = None
) -> EvalResult:
    """Evaluates ``model_ref`` (``NAME@ALIAS`` or ``NAME/VERSION``) on the val split of ``data``.

    The images are cropped and resized as the version was registered with, unless ``data.augment.eval_crop_pad`` or
    ``.eval_interpolation`` is given.
    """
    config, words = configure(overrides, profile=profile, model=model, data=data)
    registered = await fetch_registered(config.model_ref or "", config.storage)
    refuse_other_network(config.model, registered[0], registered[2], overrides)
    augment = await registered_input(registered[2], config.data.augment, "data.augment", words)
    config = replace(config, data=replace(config.data, augment=augment))
    shards = await ensure_shards(config.data, config.storage, 1)  # a single class has an accuracy, too
    job, assumed = await describe_evaluation(config, registered, shards)
    result = replace(await evaluate_task(job, config, registered[2]), assumed=assumed)
    result = await track_evaluation(job, config, result)
    await link_run(result.mlflow_run)
    return result


def refuse_other_network(model: schema.Model, registered: schema.Model, exact: str, overrides: Sequence[str]) -> None:
    """Refuses overrides of the network that differ from the registered one, because they would have no effect.

    Raises:
        ConfigError: There is one.
    """
    for word in overrides:
        key = word.partition("=")[0]
        if key != "model" and not key.startswith("model."):
            continue
        name = key.partition(".")[2] or "name"
        here, there = getattr(model, name), getattr(registered, name)
        if here != there:
            raise ConfigError(f"model_ref {exact} has model.{name}={there}, so {word} would have no effect: remove it")


async def evaluate_version(
    config: schema.Config, registered: tuple[schema.Model, tuple[str, str], str], shards: ShardResult
) -> EvalResult:
    """Evaluates a registered version on the val split of the shards; the arguments are those of the next function."""
    job, assumed = await describe_evaluation(config, registered, shards)
    return replace(await evaluate_task(job, config, registered[2]), assumed=assumed)


async def describe_evaluation(
    config: schema.Config, registered: tuple[schema.Model, tuple[str, str], str], shards: ShardResult
) -> tuple[JobRun, str]:
    """Describes the job that evaluates a registered version on the val split of the shards.

    Args:
        config: Configuration with ``data``.
        registered: Network, URI and sha256 of its weights, and ``NAME/VERSION``.
        shards: Shards of ``config.data``.

    Raises:
        ConfigError: The data set has classes that the version was not trained on.
    """
    model, weights, exact = registered
    weights, assumed = await match_classes(weights, exact, shards, config.storage)
    return evaluate_job(config, model, shards, weights, exact), assumed
