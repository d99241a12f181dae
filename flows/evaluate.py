"""A registered model on the validation split, every sample counted once."""

from __future__ import annotations

from prefect import flow

from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from models.results import EvalResult
from tasks.class_names import check_classes
from tasks.register import fetch_registered
from tasks.train import evaluate as evaluate_task
from tasks.train import evaluate_job


@flow(name="evaluate", flow_run_name=name_runs_by(lambda config, _: f"evaluate {config.model_ref or ''}".strip()))
async def evaluate(overrides: list[str]) -> EvalResult:
    """Evaluates ``model_ref`` (``NAME@ALIAS`` or ``NAME/VERSION``) on the val split of ``data``."""
    config, _ = configure(overrides)
    model, weights, exact = await fetch_registered(config.model_ref or "", config.storage)
    shards = await ensure_shards(config.data, config.storage)
    await check_classes(exact, shards)
    job = evaluate_job(config, model, shards, weights, exact)
    return await evaluate_task(job, config, exact)
