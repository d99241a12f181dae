"""Checks before the networks of the paper are trained on ImageNet.

What failure must never look like: a check that was not run and counts as passed, or an accuracy on fewer images than
the published one. The result lists every check with its outcome, and the command ends with 1 unless all passed.
"""

from __future__ import annotations

from dataclasses import replace

from prefect import flow

from conf import schema
from conf.experiments import ported_network
from flows.configure import configure, name_runs_by
from flows.evaluate import evaluate_version
from flows.failures import report_failures
from flows.shard import ensure_shards
from infra.errors import EffnetError, first_line
from models.experiments.full_run import check_request
from models.results import GateCheck, GateResult, ShardResult
from tasks.evaluate import registered_input
from tasks.readiness import FAILED, check_accuracy, check_machine, missing_weights
from tasks.registry.pretrained import import_published
from tasks.registry.register import fetch_registered


@flow(name="gate", flow_run_name=name_runs_by(lambda config: f"gate {config.profile}"))
@report_failures
async def gate(overrides: list[str], profile: str | None = None, data: str | None = None) -> GateResult:
    """Checks this machine, then the accuracy of the weights in ``gate.weights``; trains nothing.

    Raises:
        ConfigError: The data set is not ImageNet, or weights are given without its folder.
    """
    config, _ = configure(overrides, profile=profile, data=data)
    check_request(config)
    checks, accuracies = await check_machine(config), missing_weights(config)
    if config.gate.weights:
        shards = await ensure_shards(config.data, config.storage)
        for path in sorted(config.gate.weights, key=lambda path: ported_network(path) or ""):  # small networks first
            accuracies.append(await check_weights(config, path, shards))
    return GateResult((*checks, *sorted(accuracies, key=lambda check: check.name)))


async def check_weights(config: schema.Config, path: str, shards: ShardResult) -> GateCheck:
    """Imports a file of Google's weights, evaluates it, and compares; an error of either fails the check."""
    try:
        imported = await import_published(replace(config, published=schema.Published(path=path)))
        registered = await fetch_registered(f"{imported.name}/{imported.version}", config.storage)
        augment = await registered_input(registered[2], config.data.augment, "data.augment", ())
        cropped = replace(config, data=replace(config.data, augment=augment))
        result = await evaluate_version(cropped, registered, shards)
    except EffnetError as error:
        return GateCheck(f"weights of {ported_network(path)}", FAILED, first_line(error))
    return check_accuracy(path, result, config.gate.tolerance)
