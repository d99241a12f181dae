"""The experiments beside the family: scaling, frozen and fine-tuned public networks, blocks, latency; then the report.

What failure must never look like: an experiment that is lost because the one before it failed. Each runs to its
end, the report shows its result, and the first failure fails the flow last. The same command resumes. What a later part
would refuse is refused before the first job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from prefect import flow

from conf import schema
from conf.text import logger
from flows.architecture import search_blocks
from flows.configure import configure, name_runs_by, now
from flows.failures import report_failures
from flows.linear import evaluate_features
from flows.scaling import study_scaling
from flows.shard import ensure_folds
from flows.transfer import transfer_network
from infra.errors import EffnetError, first_line
from models.experiments.transfer import list_starts
from models.results import StudyResult, TransferResult
from tasks.experiments.latency import measure_latency
from tasks.preflight import check_study
from tasks.report.publish import refresh

log = logger()


async def compare_starts(config: schema.Config) -> list[TransferResult]:
    """Fine-tunes the public networks on ``data``, on which every part of the study is made, one after another.

    Raises:
        EffnetError: The error of the first network that failed, after all others have run.
    """
    results: list[TransferResult] = []
    failures: list[EffnetError] = []
    for options in list_starts(config.transfer):
        one = replace(config, transfer=replace(options, data=config.data))
        command = [f"profile={config.profile}", f"transfer.network={options.network}"]
        command.append(f"transfer.random_seeds={options.random_seeds}")
        try:
            results += await transfer_network(one, [one], command)
        except EffnetError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return results


# One after another: nothing may run during the latency measurement, and the report comes last.
PARTS: dict[str, Callable[[schema.Config], Awaitable[Any]]] = {
    "scaling": study_scaling,
    "linear": evaluate_features,
    "transfer": compare_starts,
    "architecture": search_blocks,
    "latency": measure_latency,
    "report": refresh,
}


@flow(name="study", flow_run_name=name_runs_by(lambda config: f"study {config.profile} {now()}"))
@report_failures
async def study(overrides: list[str], profile: str | None = None, data: str | None = None) -> StudyResult:
    """Runs every part even if others fail; returns what each returned.

    Raises:
        EffnetError: A refusal, before anything has run; or the error of the first failed part, after all others.
    """
    config, _ = configure(overrides, profile=profile, data=data)
    seeds = max(1, config.scaling.seeds, config.transfer.random_seeds if config.transfer.network else 1)
    await check_study(config, await ensure_folds(config.data, config.storage, seeds))
    failures: list[EffnetError] = []
    results: dict[str, Any] = {}
    networks = {"linear": config.linear.networks, "transfer": config.transfer.network}
    parts = {name: run_part for name, run_part in PARTS.items() if networks.get(name, True)}
    for number, (name, run_part) in enumerate(parts.items(), 1):
        log.info("%s: part %d of %d", name, number, len(parts))
        try:
            results[name] = await run_part(config)
        except EffnetError as error:
            log.warning("%s failed: %s", name, first_line(error))
            failures.append(error)
    if failures:
        raise failures[0]
    return StudyResult({name: part for name, part in results.items() if name != "report"}, results["report"])
