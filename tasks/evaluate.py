"""Evaluation of registered weights: a job found by its key, or run under supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from prefect import task

from conf import schema
from conf.text import logger
from conf.training import EvalTransform
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


@task(task_run_name="input of {ref}", **policy.BOOKKEEPING)
async def registered_input(ref: str, augment: schema.Augment, key: str, overrides: Sequence[str]) -> schema.Augment:
    """Returns the augmentation with the evaluation crop and interpolation that a version was registered with.

    Args:
        ref: ``NAME/VERSION``.
        augment: Settings of the profile.
        key: Their key, as ``data.augment``.
        overrides: Overrides of the command; what they set remains.

    Raises:
        ArtifactError: The version was not registered by effnet, or its description is damaged.
    """
    return await asyncio.to_thread(_registered_input, ref, augment, key, overrides)


def _registered_input(ref: str, augment: schema.Augment, key: str, overrides: Sequence[str]) -> schema.Augment:
    from infra.tracking import registry

    description = registry.describe(registry.resolve_version(ref))
    return with_input(augment, description, ref, key, overrides)


def with_input(
    augment: schema.Augment, description: Mapping[str, Any], ref: str, key: str, overrides: Sequence[str]
) -> schema.Augment:
    """Returns the augmentation with the input of a version's description, and logs a change; raises ArtifactError."""
    from models.networks.description import read_transform

    try:
        stated = asdict(read_transform(description))
        registered = schema.Augment(**{f"eval_{name}": value for name, value in stated.items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{ref}: its config.json states no evaluation crop: {error!r}") from error
    for name in (f"eval_{entry.name}" for entry in fields(EvalTransform)):
        here, there = getattr(augment, name), getattr(registered, name)
        if here == there:
            continue
        if any(word.startswith((f"{key}.{name}=", f"{key}=")) and name in word for word in overrides):
            log.info("%s was registered with %s %s; %s.%s=%s replaces it", ref, name, there, key, name, here)
            continue
        log.info(
            "%s was registered with %s %s, which is used instead of %s; %s.%s sets another",
            *(ref, name, there, here, key, name),
        )
        augment = replace(augment, **{name: there})
    return augment
