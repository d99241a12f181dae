"""Evaluation of registered weights: a job found by its key, or run under supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from prefect import task

from conf import compose, schema
from conf.data_set import EvalTransform
from conf.text import logger
from infra import store
from infra.errors import ArtifactError
from models.results import EvalResult, result_from, result_name
from models.statistics import interval_95, mean_per_class
from tasks import policy, slots
from tasks.jobs import JobRun, result_uri, stored_result
from tasks.metrics import DESCRIPTION, split_result
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


async def track_evaluation(run: JobRun, config: schema.Config, result: EvalResult) -> EvalResult:
    """Returns the result with its MLflow run, which is written unless it is there, and opens no task for that.

    Args:
        run: The job of the evaluation.
        config: Configuration of the command.
        result: What ``evaluate`` returned.

    Raises:
        TransientError: MLflow does not answer; the same call resumes later.
    """
    existing = await asyncio.to_thread(_find_tracked, run, config, result)
    return replace(result, mlflow_run=existing or await record_evaluation(run, config, result))


def _find_tracked(run: JobRun, config: schema.Config, result: EvalResult) -> str | None:
    from infra.tracking import runs

    return runs.find_finished(config.experiment, _tracked_key(run, result))


def _tracked_key(run: JobRun, result: EvalResult) -> str:
    """Key of the MLflow run: two versions with the same weights share a job, and each has its run."""
    return f"{run.key} of {result.model_ref}"


@task(task_run_name="record the evaluation of {result.model_ref}", **policy.BOOKKEEPING)
async def record_evaluation(run: JobRun, config: schema.Config, result: EvalResult) -> str:
    """Writes an evaluation into MLflow: a run, metrics of the version's model, and tags of the version.

    Returns:
        The id of the run.
    """
    return await asyncio.to_thread(_record_evaluation, run, config, result)


def _record_evaluation(run: JobRun, config: schema.Config, result: EvalResult) -> str:
    from infra.tracking import cards, registry, runs

    data = cards.DataSet(result.data, run.job.manifest_sha256, run.job.manifest_uri)
    version = registry.resolve_version(result.model_ref)
    half = interval_95(result.top1, result.n)
    about = f"{result.top1:.2f} % top-1 on {result.n:,} val images of {result.data} (± {half:.2f}, 95 %)"
    tags = {
        "role": "evaluation",
        "model_ref": result.model_ref,
        "dataset": result.data,
        "val_n": str(result.n),
        "data_manifest_sha256": data.sha256,
        "data_manifest_uri": data.uri,
        "job_uri": run.job_uri,
        "profile": config.profile,
        **({"assumed": result.assumed} if result.assumed else {}),
        DESCRIPTION: f"{about} of [{result.model_ref}]({registry.version_url(version.name, version.version)})",
    }
    run_id = runs.start_run(
        config.experiment,
        f"evaluate {result.model_ref} on {result.data}",
        _tracked_key(run, result),
        params=compose.to_dict(run.job),
        tags=tags,
    )
    cards.log_evaluation(run_id, version.name, version.version, _metrics(result), data)
    is_whole = config.data.limit is None and not run.job.leave_out  # else it is no accuracy on that data set
    if is_whole and registry.WEIGHTS_TAG in version.tags and version.tags.get("dataset") != result.data:
        scores = {f"top1.{result.data}": f"{result.top1:.2f}", f"ci95.{result.data}": f"{half:.2f}"}
        registry.set_tags(version.name, version.version, scores)
    runs.finish_run(run_id, "FINISHED", {})
    return run_id


def _metrics(result: EvalResult) -> dict[str, float]:
    metrics, _ = split_result(asdict(result))
    metrics["val/top1_ci95"] = interval_95(result.top1, result.n)
    if result.class_total:
        metrics["val/mean_per_class"] = mean_per_class(result.class_correct, result.class_total).value
    return metrics


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
