"""A registered model on the validation split, every sample counted once."""

from __future__ import annotations

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from models.results import EvalResult, ShardResult
from tasks.classes import match_classes
from tasks.evaluate import evaluate as evaluate_task
from tasks.evaluate import use_registered_crop
from tasks.jobs import evaluate_job
from tasks.registry.register import fetch_registered


@flow(name="evaluate", flow_run_name=name_runs_by(lambda config: f"evaluate {config.model_ref or ''}".strip()))
async def evaluate(
    overrides: list[str], profile: str | None = None, model: str | None = None, data: str | None = None
) -> EvalResult:
    """Evaluates ``model_ref`` (``NAME@ALIAS`` or ``NAME/VERSION``) on the val split of ``data``.

    The images are cropped as the version was registered with, unless ``data.augment.eval_crop_pad`` is given.
    """
    config, words = configure(overrides, profile=profile, model=model, data=data)
    registered = await fetch_registered(config.model_ref or "", config.storage)
    if not any(word.startswith(("data.augment.", "data.augment=")) and "eval_crop_pad" in word for word in words):
        config = await use_registered_crop(config, registered[2])
    return await evaluate_version(config, registered, await ensure_shards(config.data, config.storage))


async def evaluate_version(
    config: schema.Config, registered: tuple[schema.Model, tuple[str, str], str], shards: ShardResult
) -> EvalResult:
    """Evaluates a registered version on the val split of the shards.

    Args:
        config: Configuration with ``data``.
        registered: Network, URI and sha256 of its weights, and ``NAME/VERSION``.
        shards: Shards of ``config.data``.

    Raises:
        ConfigError: The data set has classes that the version was not trained on.
    """
    model, weights, exact = registered
    weights = await match_classes(weights, exact, shards, config.storage)
    return await evaluate_task(evaluate_job(config, model, shards, weights, exact), config, exact)
