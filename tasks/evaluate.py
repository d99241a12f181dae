"""Evaluation of registered weights: a job found by its key, or run under supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prefect import task

from conf import schema
from conf.text import logger
from infra import store
from infra.errors import ArtifactError
from models.results import EvalResult, result_from, result_name
from tasks import policy, slots
from tasks.jobs import JobRun, result_uri, stored_result
from tasks.supervise import run_job

log = logger()


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
