"""A registered model on the validation split, every sample counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from prefect import flow

from conf import schema
from conf.text import logger
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from flows.shard import without_accept, write_shards
from infra.errors import ConfigError
from models.results import EvalResult, ShardResult
from tasks.artifacts import link_run
from tasks.classes import match_classes
from tasks.evaluate import evaluate as evaluate_task
from tasks.evaluate import registered_input, track_evaluation
from tasks.jobs import JobRun, evaluate_job
from tasks.registry.register import fetch_registered
from tasks.shard import ShardPlan, plan_shards

FetchedVersion = tuple[schema.Model, tuple[str, str], str]  # network, URI and sha256 of its weights, NAME/VERSION

log = logger()


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
    config = replace(config, data=without_accept(config.data))
    plan = await plan_shards(config.data, config.storage, 1)  # a single class has an accuracy, too
    matched = await match_version(registered, config.data.augment, plan, config.storage, words)
    shards = await write_shards(config.data, plan)
    warn_of_drawn_val(config.data, plan, shards)
    job = describe_evaluation(config, matched, shards)
    result = replace(await evaluate_task(job, config, matched.exact), assumed=matched.assumed)
    result = await track_evaluation(job, config, result)
    await link_run(result.mlflow_run)
    return result


def warn_of_drawn_val(data: schema.Data, plan: ShardPlan, shards: ShardResult) -> None:
    """Says how many images of a folder are evaluated if it has no val of its own."""
    if plan.is_val_drawn and data.source == "folder":
        log.warning(
            "%s has no split val: %s of its %s images, which are drawn, are evaluated; data.val_folders=[.] takes all "
            "of them, and so also those that were trained on, if the model was trained on this folder",
            data.name,
            f"{shards.val:,}",
            f"{shards.train + shards.minival + shards.val:,}",
        )


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


class MatchedVersion(NamedTuple):
    """A registered version whose classifier has the classes of a data set, in their order.

    Attributes:
        model: The network.
        weights: URI and sha256 of its weights.
        exact: ``NAME/VERSION``.
        augment: Augmentation of the data set with the crop and interpolation that the version was registered with.
        assumed: What is assumed about its class names; empty for nothing.
    """

    model: schema.Model
    weights: tuple[str, str]
    exact: str
    augment: schema.Augment
    assumed: str


async def match_version(
    registered: FetchedVersion, augment: schema.Augment, plan: ShardPlan, storage: str, words: Sequence[str]
) -> MatchedVersion:
    """Compares the classes of a version with those of a data set before that is written, which may take hours.

    Args:
        registered: The version.
        augment: ``data.augment`` of the configuration.
        plan: Plan of the data set.
        storage: Root of the object store.
        words: Overrides of the command.

    Raises:
        ConfigError: The data set has classes that the version was not trained on.
    """
    model, weights, exact = registered
    weights, assumed = await match_classes(weights, exact, plan, storage)
    return MatchedVersion(model, weights, exact, await registered_input(exact, augment, "data.augment", words), assumed)


def describe_evaluation(config: schema.Config, version: MatchedVersion, shards: ShardResult) -> JobRun:
    """Describes the job that evaluates a version on the val split of the shards."""
    config = replace(config, data=replace(config.data, augment=version.augment))
    return evaluate_job(config, version.model, shards, version.weights, version.exact)


async def evaluate_matched(config: schema.Config, version: MatchedVersion, shards: ShardResult) -> EvalResult:
    """Evaluates a version on the val split of the shards."""
    job = describe_evaluation(config, version, shards)
    return replace(await evaluate_task(job, config, version.exact), assumed=version.assumed)


async def evaluate_version(config: schema.Config, registered: FetchedVersion, shards: ShardResult) -> EvalResult:
    """Evaluates a registered version on the val split of shards that are there.

    Args:
        config: Configuration with ``data``.
        registered: The version.
        shards: Shards of ``config.data``.

    Raises:
        ConfigError: The data set has classes that the version was not trained on.
    """
    model, weights, exact = registered
    weights, assumed = await match_classes(weights, exact, shards, config.storage)
    version = MatchedVersion(model, weights, exact, config.data.augment, assumed)
    return await evaluate_matched(config, version, shards)
