"""Frozen features of public networks under logistic regression, against those of random weights, on ``data``.

What failure must never look like: a difference without its interval, or a comparison that is absent because of its
result. Every network is compared, and the verdict is stated in words whatever it is.
"""

from __future__ import annotations

from prefect import flow, task

from conf import schema
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from flows.shard import ensure_folds
from models.networks.packaged import check_networks, list_frozen
from models.results import LinearResult
from tasks import policy
from tasks.experiments.linear import classify, record_linear


@flow(name="linear", flow_run_name=name_runs_by(lambda config: f"linear {config.data.name}"))
@report_failures
async def linear(overrides: list[str], profile: str | None = None, data: str | None = None) -> LinearResult:
    """Evaluates the features of ``linear.networks`` on ``data``."""
    config, _ = configure(overrides, profile=profile, data=data)
    return await evaluate_features(config)


@task(task_run_name="linear", **policy.GROUP)
async def evaluate_features(config: schema.Config) -> LinearResult:
    """Classifies val by the features of every network, one after another, and writes the report's part.

    The same command finds the answers that are stored.

    Raises:
        ConfigError: No network.
        NotFoundError: The package of a network is not installed.
    """
    check_networks(config.linear)
    folds = await ensure_folds(config.data, config.storage, config.data.folds)
    answers = []
    distinct = len({fold.manifest_sha256 for fold in folds})
    for frozen in list_frozen(config.linear, distinct):  # one after another, since each uses all cores
        answers.append(await classify(config, folds[frozen.fold], frozen))
    return await record_linear(config, answers)
