"""Evaluation of registered weights, on data of the same classes: a job found by its key, or run under supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect import task

from conf import schema
from conf.text import logger
from infra import store
from infra.errors import ArtifactError, ConfigError
from models.results import EvalResult, ShardResult, result_from, result_name
from tasks import policy, slots
from tasks.jobs import JobRun, result_uri, stored_result
from tasks.supervise import run_job

if TYPE_CHECKING:
    from infra.tracking.registry import Version

log = logger()
SHOWN = 3  # differences in a message


async def evaluate(run: JobRun, config: schema.Config, model_ref: str) -> EvalResult:
    """Evaluates, or returns a stored evaluation if its per-image results are intact.

    Args:
        run: The job.
        config: Configuration of the command.
        model_ref: ``NAME/VERSION`` of the registered model.

    Raises:
        EffnetError: The error of the job.
    """
    result = await asyncio.to_thread(intact_result, run)
    if result is None:
        async with slots.queue(config.launch):
            result = await run_evaluation(run, config)
    context = {"job": run.key, "model_ref": model_ref, "data": run.job.data_name, "job_uri": run.job_uri}
    return result_from(EvalResult, {k: v for k, v in (result | context).items() if k != "minutes"}, result_uri(run))


@task(task_run_name="{run.label}", **policy.TRAINING)
async def run_evaluation(run: JobRun, config: schema.Config) -> dict[str, Any]:
    """Runs the job and returns its result."""
    async with slots.slot_of(config.launch, run.label):
        return await run_job(run, config, "")


def intact_result(run: JobRun) -> dict[str, Any] | None:
    """The stored result; deletes one whose per-image results are missing or damaged, and returns None for it."""
    from models.training import per_image

    done = stored_result(run)
    if done is not None and per_image.read(run.job_uri, done) is None:
        store.delete(store.join(run.job_uri, result_name(run.job)))
        return None
    return done


@task(task_run_name="crop of {ref}", **policy.BOOKKEEPING)
async def use_registered_crop(config: schema.Config, ref: str) -> schema.Config:
    """Returns the configuration with the evaluation crop that a version was registered with.

    Args:
        config: Configuration of the command.
        ref: ``NAME/VERSION``.

    Raises:
        ArtifactError: The version was not registered by effnet, or its description is damaged.
    """
    return await asyncio.to_thread(_use_registered_crop, config, ref)


def _use_registered_crop(config: schema.Config, ref: str) -> schema.Config:
    from infra.tracking import registry

    return with_crop(config, registry.describe(registry.resolve_version(ref)), ref)


def with_crop(config: schema.Config, description: Mapping[str, Any], ref: str) -> schema.Config:
    """Returns the configuration with the crop of a version's description, and logs a change; raises ArtifactError."""
    try:
        pad = int(description["input"]["crop_pad"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{ref}: its config.json states no evaluation crop: {error!r}") from error
    augment = config.data.augment
    if pad == augment.eval_crop_pad:
        return config
    log.info(
        "%s was registered with eval_crop_pad %d, which is used instead of %d; data.augment.eval_crop_pad sets another",
        ref,
        pad,
        augment.eval_crop_pad,
    )
    return replace(config, data=replace(config.data, augment=replace(augment, eval_crop_pad=pad)))


@task(task_run_name="classes of {ref}", **policy.BOOKKEEPING)
async def check_classes(ref: str, shards: ShardResult) -> None:
    """Raises if the labels of a data set are not the classes of a model.

    Args:
        ref: ``NAME/VERSION``.
        shards: The data set to evaluate on.

    Raises:
        ConfigError: The lists of classes differ; the message shows the difference.
        ArtifactError: The version was not registered by effnet, or its description is damaged.
    """
    await asyncio.to_thread(_check_classes, ref, shards)


def _check_classes(ref: str, shards: ShardResult) -> None:
    from infra.tracking import registry

    mismatch = class_mismatch(registry.resolve_version(ref), shards)
    if mismatch is not None:
        raise ConfigError(
            f"{ref} was trained on other classes than those of {shards.name}: {mismatch}; its accuracy "
            "there would mean nothing. Take the data set that it was trained on"
        )


def class_mismatch(version: Version, shards: ShardResult) -> str | None:
    """The difference between the classes of a version and of a data set as text; None if they are equal.

    Imported weights have no class names. Then only the number of classes is compared, which is logged.
    """
    from infra.tracking import registry
    from models.data.shards import manifest as manifests

    names = [str(name) for name in registry.describe(version)["class_names"]]
    _, manifest = manifests.load(shards.manifest_uri)
    unknown = "source_sha256" in version.tags and names == [str(number) for number in range(len(names))]
    if unknown and len(names) == len(manifest.classes):
        log.info("%s/%d: class names unknown: assumed in the order of %s", version.name, version.version, shards.name)
        return None
    return describe_difference(names, manifest.classes)


def describe_difference(model: Sequence[str], data: Sequence[str]) -> str | None:
    """The first classes that differ between a model's list and a data set's; None if the lists are equal."""
    if list(model) == list(data):
        return None
    if len(model) != len(data):
        counts = f"the model has {len(model)} classes, the data {len(data)}"
        beyond = sorted(set(data) - set(model))[:SHOWN] or sorted(set(model) - set(data))[:SHOWN]
        return f"{counts}; only one of them has {', '.join(map(repr, beyond))}" if beyond else counts
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(model, data, strict=True)) if a != b]
    shown = ", ".join(f"class {i} is {a!r} in the model and {b!r} in the data" for i, a, b in pairs[:SHOWN])
    return f"{shown} ({len(pairs)} of {len(model)} differ)"
