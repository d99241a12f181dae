"""Evaluation of registered weights: a job found by its key, or run under supervision."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import task

from conf import schema
from infra import store
from models.results import EvalResult, result_from, result_name
from tasks import policy, slots
from tasks.jobs import JobRun, result_uri, stored_result
from tasks.supervise import run_job


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
