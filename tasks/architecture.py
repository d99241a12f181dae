"""Bookkeeping of the architecture search: proposals, refused and trained trials, and the summary.

A trial is an ordinary training job, keyed by the digest of its request, so an earlier training is reused. The database
of trials (``infra/trials.py``) only decides what to propose next; losing it loses no training.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import task

from conf import compose, schema
from conf.text import logger
from infra import trials as database
from infra.errors import ConfigError, EffnetError, JobError, first_line
from models.experiments import architecture_space as space
from models.networks.efficientnet import block_strings
from models.networks.efficientnet.variants import B0_STAGES
from models.results import ShardResult, TrainResult
from tasks import policy
from tasks.jobs import work_key
from tasks.report import results as report_results
from tasks.report.numbers import standard_error

log = logger()
B0_BLOCKS = block_strings.encode(B0_STAGES)
MAX_REFUSED = 500  # consecutive refused proposals after which the search fails
WAIT_S = 2.0  # polling interval while other workers train the last trials


@dataclass(frozen=True)
class ArchitectureRun:
    """A running architecture search."""

    trials: database.Trials
    shards: ShardResult
    mlflow_run: str
    done_before: int


@dataclass(frozen=True)
class Proposal:
    """A proposal that meets the constraints."""

    trial: Any  # Optuna's handle, for infra.trials alone
    number: int
    blocks: list[str]
    params: int
    multiply_adds: int


@task(task_run_name="start", **policy.BOOKKEEPING)
async def start_architecture(config: schema.Config, shards: ShardResult) -> ArchitectureRun:
    """Opens the database and the MLflow run of the search; B0's own blocks are its first proposal.

    Raises:
        ConfigError: B0 itself breaks the constraints, or the database URL is invalid.
        TransientError: The database or MLflow does not respond.
    """
    return await asyncio.to_thread(_start, config, shards)


def _start(config: schema.Config, shards: ShardResult) -> ArchitectureRun:
    from infra.tracking import runs
    from models.networks.build import compute_cost

    options = config.architecture
    params, multiply_adds, _ = compute_cost(replace(options.model, blocks=B0_BLOCKS), shards.classes)
    if excess := broken(options, params, multiply_adds):
        raise ConfigError(
            f"B0's own blocks break the search's constraints: {why(options, params, multiply_adds, excess)}; "
            "set architecture.target_multiply_adds to the size of architecture.model"
        )
    request = compose.to_dict(options) | {"manifest_sha256": shards.manifest_sha256, "choices": space.choices()}
    for key in ("trials", "storage"):  # more trials continue the same search
        del request[key]
    name = work_key("architecture", request)
    opened = database.open_trials(
        options.storage or f"sqlite:///{Path(config.run_dir).resolve()}/architecture.db",
        name,
        directions=("maximize", "minimize"),
        sampler=options.sampler,
        startup=options.population,
        seed=options.seed,
    )
    database.enqueue(opened, space.point(B0_STAGES))
    run = runs.start_run(
        config.experiment,
        "architecture search",
        name,
        params={"architecture": compose.to_dict(options), "data": compose.to_dict(config.data)},
        tags={"role": "architecture"},
    )
    done = sum(trial.state == "complete" for trial in database.list_trials(opened))
    return ArchitectureRun(opened, shards, run, done)


async def propose(config: schema.Config, started: ArchitectureRun) -> Proposal | None:
    """The next proposal that meets the constraints; None when ``architecture.trials`` have ended.

    A proposal that breaks a constraint is reported to the sampler as refused, and another is requested. A trial whose
    process died is requeued. While other workers train the last trials this waits, since one of them may be lost.

    Raises:
        ConfigError: The constraints refuse every proposal.
    """
    while True:
        left, proposal = await asyncio.to_thread(_propose, config.architecture, started)
        if proposal is not None or left <= 0:
            return proposal
        await asyncio.sleep(WAIT_S)


def _propose(options: schema.Architecture, started: ArchitectureRun) -> tuple[int, Proposal | None]:
    """The number of unfinished trials, and the next proposal unless all of them are running."""
    with started.trials.asking:  # if two workers see one trial left, only one gets it
        records = database.list_trials(started.trials)
        for number in database.find_lost(records, time.time()):
            log.info("trial %d: its process is gone; requeued", number)
            database.requeue(started.trials, number)
        left = options.trials - sum(record.state in ("complete", "failed") for record in records)
        if left <= sum(record.state == "running" for record in records):
            return left, None
        return left, _propose_within_constraints(options, started)


def _propose_within_constraints(options: schema.Architecture, started: ArchitectureRun) -> Proposal:
    from models.networks.build import compute_cost

    for _ in range(MAX_REFUSED):
        trial = database.ask(started.trials, space.choices())
        blocks = block_strings.encode(space.stages(trial.params))
        params, multiply_adds, _ = compute_cost(replace(options.model, blocks=blocks), started.shards.classes)
        excess = broken(options, params, multiply_adds)
        if not excess:
            return Proposal(trial, trial.number, blocks, params, multiply_adds)
        reason = why(options, params, multiply_adds, excess)
        log.info("trial %d: refused, %s", trial.number, reason)
        facts = {"blocks": blocks, "params": params, "multiply_adds": multiply_adds, "reason": reason}
        database.refuse(started.trials, trial, excess, facts)
    raise ConfigError(
        f"{MAX_REFUSED} proposals in a row break the constraints; raise architecture.max_cost, which is "
        f"{options.max_cost:g}, or architecture.max_params"
    )


def broken(options: schema.Architecture, params: int, multiply_adds: int) -> dict[str, float]:
    """Relative excess of a network over each limit that it breaks."""
    limits = {"multiply_adds": (multiply_adds, options.max_cost * options.target_multiply_adds)}
    if options.max_params is not None:
        limits["params"] = (params, float(options.max_params))
    return {name: value / limit - 1 for name, (value, limit) in limits.items() if value > limit}


def why(options: schema.Architecture, params: int, multiply_adds: int, excess: dict[str, float]) -> str:
    """The broken limits as text, with the numbers."""
    texts = {
        "multiply_adds": f"{multiply_adds:,} multiply-adds are more than {options.max_cost:g} times the target "
        f"{options.target_multiply_adds:,.0f}",
        "params": f"{params:,} parameters are more than {options.max_params or 0:,}",
    }
    return "; ".join(texts[name] for name in excess)


def proposal_config(config: schema.Config, proposal: Proposal) -> schema.Config:
    """The configuration of a trial's training."""
    options = config.architecture
    return replace(config, model=replace(options.model, blocks=proposal.blocks), recipe=options.recipe)


@asynccontextmanager
async def heartbeat(started: ArchitectureRun, proposal: Proposal) -> AsyncIterator[None]:
    """Records heartbeats while the context is open, so that no other worker requeues the trial."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(database.BEAT_S)
            with suppress(EffnetError):  # the next beat may reach the database
                await asyncio.to_thread(database.record_heartbeat, started.trials, proposal.trial)

    beat_task = asyncio.create_task(beat())
    try:
        yield
    finally:
        beat_task.cancel()


async def report_result(started: ArchitectureRun, proposal: Proposal, result: TrainResult) -> None:
    """Reports a trained proposal: its minival accuracy and its cost."""
    facts = {
        **_facts(proposal),
        "accuracy": result.minival_top1,
        "n": result.n_minival,
        "mlflow_run": result.mlflow_run,
        "job": result.job,
    }
    values = (result.minival_top1, float(proposal.multiply_adds))
    await asyncio.to_thread(database.complete, started.trials, proposal.trial, values, facts)


async def report_failure(started: ArchitectureRun, proposal: Proposal, error: Exception) -> None:
    """Reports a proposal that diverged or did not fit into memory. The search continues without it."""
    reason = first_line(error)
    log.warning("trial %d failed: %s", proposal.number, reason)
    await asyncio.to_thread(database.fail, started.trials, proposal.trial, {**_facts(proposal), "reason": reason})


def requeue(started: ArchitectureRun, proposal: Proposal) -> None:
    """Requeues an interrupted proposal, so that the same command resumes it immediately."""
    with suppress(EffnetError):  # otherwise it is detected as lost later
        database.requeue(started.trials, proposal.number)


def _facts(proposal: Proposal) -> dict[str, Any]:
    return {"blocks": proposal.blocks, "params": proposal.params, "multiply_adds": proposal.multiply_adds}


@task(task_run_name="sum up", **policy.BOOKKEEPING)
async def record_architecture(config: schema.Config, started: ArchitectureRun) -> dict[str, Any]:
    """Writes the search's summary to the report and to its MLflow run.

    Raises:
        JobError: No trial finished.
    """
    return await asyncio.to_thread(_record, config, started)


def _record(config: schema.Config, started: ArchitectureRun) -> dict[str, Any]:
    from infra.tracking import runs

    run = started.mlflow_run
    runs_url = runs.run_url(run).removesuffix(run)  # all trials are in the same experiment
    facts = {
        **summary(config.architecture, database.list_trials(started.trials), runs_url),
        "data": started.shards.name,
        "found": started.done_before,
        "command": f"effnet architecture profile={config.profile}",
    }
    part = report_results.publish_part(config, "architecture", facts, report_results.digests([started.shards]))
    runs.log_text(run, json.dumps(part, indent=1), "architecture.json")
    best = facts["best"]
    numbers = {key: float(best[key]) for key in ("reward", "accuracy", "multiply_adds", "params")}
    runs.finish_run(run, "FINISHED", {f"best_{key}": value for key, value in numbers.items()})
    return part


def summary(options: schema.Architecture, records: list[database.TrialRecord], runs_url: str = "") -> dict[str, Any]:
    """All trials with their reward and Pareto front, the best by reward, and the trial of B0's blocks.

    Raises:
        JobError: No trial finished; the message holds the reason of the first failure.
    """
    listed = [record for record in records if record.state in ("complete", "refused", "failed")]
    rows = [_row(options, record, runs_url) for record in listed]
    done = [row for row in rows if row["state"] == "complete"]
    failures = [f"trial {row['number']}: {row['reason']}" for row in rows if row["state"] == "failed"]
    if not done:
        raise JobError(
            f"no trial of the architecture search finished; {failures[0] if failures else 'none was started'}"
        )
    for row, front in zip(done, space.pareto([(r["accuracy"], r["multiply_adds"]) for r in done]), strict=True):
        row["pareto"] = front
    best = max(done, key=lambda row: row["reward"])
    baseline = next((row for row in done if row["blocks"] == B0_BLOCKS), None)
    return {
        "objective": {"exponent": options.exponent, "target_multiply_adds": options.target_multiply_adds},
        "trials": rows,
        "best": best,
        "baseline": baseline,
        "verdict": verdict(best, baseline, len(done)),
        "sampler": options.sampler,
        "seed": options.seed,
        "points_of_the_space": space.size(),
        "missing": failures + ([] if baseline else ["B0's own blocks did not train"]),
    }


def _row(options: schema.Architecture, trial: database.TrialRecord, runs_url: str) -> dict[str, Any]:
    facts, accuracy = trial.facts, trial.facts.get("accuracy")
    cost = facts["multiply_adds"]
    scored = None if accuracy is None else space.reward(accuracy, cost, options.target_multiply_adds, options.exponent)
    return {
        "number": trial.number,
        "blocks": facts["blocks"],
        "params": facts["params"],
        "multiply_adds": cost,
        "accuracy": accuracy,
        "n": facts.get("n"),
        "standard_error": standard_error(accuracy, facts.get("n")),
        "reward": scored,
        "state": trial.state,
        "reason": facts.get("reason"),
        "mlflow_url": f"{runs_url}{facts['mlflow_run']}" if facts.get("mlflow_run") else None,
        "pareto": False,
    }


def verdict(best: dict[str, Any], baseline: dict[str, Any] | None, trials: int) -> str:
    """The best trial by reward compared with B0's blocks, as text."""
    scored = f"reward {best['reward']:.2f}, {best['accuracy']:.2f} ± {best['standard_error']:.2f} % of {best['n']}"
    outcome = f"trial {best['number']} is best of {trials} ({scored} minival images)"
    if baseline is None:
        return f"{outcome}; B0's own blocks did not train"
    if best["number"] == baseline["number"]:
        return f"{outcome}: B0's own blocks"
    margin = best["reward"] - baseline["reward"]
    error = best["standard_error"] * best["reward"] / best["accuracy"] if best["accuracy"] else 0.0
    apart = "more than" if margin > error else "not more than"
    return f"{outcome}; that is {margin:.2f} above B0's own blocks, {apart} one standard error ({error:.2f})"
