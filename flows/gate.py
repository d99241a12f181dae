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
from flows.evaluate import MatchedVersion, evaluate_matched, match_version
from flows.failures import report_failures
from flows.shard import without_accept, write_shards
from infra.errors import EffnetError, first_line
from models.experiments.full_run import check_request
from models.results import GateCheck, GateResult
from tasks.readiness import FAILED, check_accuracy, check_machine, missing_weights
from tasks.registry.pretrained import import_published
from tasks.registry.register import fetch_registered
from tasks.shard import plan_shards


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
        accuracies += await check_accuracies(config)
    return GateResult((*checks, *sorted(accuracies, key=lambda check: check.name)))


async def check_accuracies(config: schema.Config) -> list[GateCheck]:
    """Imports the files of Google's weights, evaluates them, and compares; an error of a file fails its check.

    ImageNet is sharded, which takes hours, only if at least one of the files can be evaluated on it.
    """
    data = without_accept(config.data)
    plan = await plan_shards(data, config.storage, 2)
    checks, versions = list[GateCheck](), dict[str, MatchedVersion]()
    for path in sorted(config.gate.weights, key=lambda path: ported_network(path) or ""):  # small networks first
        try:
            imported = await import_published(replace(config, published=schema.Published(path=path)))
            fetched = await fetch_registered(f"{imported.name}/{imported.version}", config.storage)
            versions[path] = await match_version(fetched, data.augment, plan, config.storage, ())
        except EffnetError as error:
            checks.append(_fail(path, error))
    if not versions:
        return checks
    shards = await write_shards(data, plan)
    for path, version in versions.items():
        try:
            evaluated = await evaluate_matched(config, version, shards)
            checks.append(check_accuracy(path, evaluated, config.gate.tolerance))
        except EffnetError as error:
            checks.append(_fail(path, error))
    return checks


def _fail(path: str, error: EffnetError) -> GateCheck:
    return GateCheck(f"weights of {ported_network(path)}", FAILED, first_line(error))
