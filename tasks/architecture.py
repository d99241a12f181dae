"""The architecture search's bookkeeping: what is proposed, refused, trained and told, and what came of all of it.

A trial is an ordinary training job, named by the digest of what is asked: one that was trained before is found. The
database of trials (``infra/trials.py``) only says what to ask next, so a lost one costs no training.
"""

from __future__ import annotations

import asyncio
import hashlib
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
from tasks.report import results as report_results
from tasks.report.numbers import standard_error

log = logger()
B0_BLOCKS = block_strings.encode(B0_STAGES)
MAX_REFUSED = 500  # in a row, then the constraints leave nothing
WAIT_S = 2.0  # for trials of other workers, when there is nothing left to propose


@dataclass(frozen=True)
class ArchitectureRun:
    """An architecture search under way."""

    trials: database.Trials
    shards: ShardResult
    mlflow_run: str
    done_before: int


@dataclass(frozen=True)
class Proposal:
    """One proposal that meets the constraints."""

    trial: Any  # Optuna's handle, for infra.trials alone
    number: int
    blocks: list[str]
    params: int
    multiply_adds: int


@task(task_run_name="start", **policy.BOOKKEEPING)
async def start_architecture(config: schema.Config, shards: ShardResult) -> ArchitectureRun:
    """Opens the database and the MLflow run of the search; B0's own blocks are its first proposal.

    Raises:
        ConfigError: B0 itself breaks the constraints, or the database's address is none.
        TransientError: the database or MLflow do not answer.
    """
    return await asyncio.to_thread(_start, config, shards)


def _start(config: schema.Config, shards: ShardResult) -> ArchitectureRun:
    from infra.tracking import runs
    from models.networks.build import compute_cost

    wanted = config.architecture
    params, multiply_adds, _ = compute_cost(replace(wanted.model, blocks=B0_BLOCKS), shards.classes)
    if excess := broken(wanted, params, multiply_adds):
        raise ConfigError(
            f"B0's own blocks break the search's constraints: {why(wanted, params, multiply_adds, excess)}; "
            "set architecture.target_multiply_adds to the size of architecture.model"
        )
    asked = compose.to_dict(wanted) | {"manifest_sha256": shards.manifest_sha256, "choices": space.choices()}
    for key in ("trials", "storage"):  # more trials go on with the same search
        del asked[key]
    name = "architecture-" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
    opened = database.open_trials(
        wanted.storage or f"sqlite:///{Path(config.run_dir).resolve()}/architecture.db",
        name,
        directions=("maximize", "minimize"),
        sampler=wanted.sampler,
        startup=wanted.population,
        seed=wanted.seed,
    )
    database.enqueue(opened, space.point(B0_STAGES))
    run = runs.start_run(
        config.experiment,
        "architecture search",
        name,
        params={"architecture": compose.to_dict(wanted), "data": compose.to_dict(config.data)},
        tags={"role": "architecture"},
    )
    done = sum(each.state == "complete" for each in database.list_trials(opened))
    return ArchitectureRun(opened, shards, run, done)


async def propose(config: schema.Config, started: ArchitectureRun) -> Proposal | None:
    """The next proposal that is worth training; None when as many as wanted have ended.

    What breaks a constraint is told to the sampler as refused, and the next is asked for. A trial whose process died
    is given out again. Where the last ones are still being trained by others, this waits for them: one may be lost.

    Raises:
        ConfigError: the constraints refuse everything.
    """
    while True:
        left, asked = await asyncio.to_thread(_propose, config.architecture, started)
        if asked is not None or left <= 0:
            return asked
        await asyncio.sleep(WAIT_S)


def _propose(wanted: schema.Architecture, started: ArchitectureRun) -> tuple[int, Proposal | None]:
    """How many trials have not ended yet, and the next proposal where one of them is not being trained."""
    with started.trials.asking:  # of two workers that both see one left, one gets it
        found = database.list_trials(started.trials)
        for number in database.find_lost(found, time.time()):
            log.info("trial %d: its process is gone; it is given out again", number)
            database.requeue(started.trials, number)
        left = wanted.trials - sum(each.state in ("complete", "failed") for each in found)
        if left <= sum(each.state == "running" for each in found):
            return left, None
        return left, _within_constraints(wanted, started)


def _within_constraints(wanted: schema.Architecture, started: ArchitectureRun) -> Proposal:
    from models.networks.build import compute_cost

    for _ in range(MAX_REFUSED):
        trial = database.ask(started.trials, space.choices())
        blocks = block_strings.encode(space.stages(trial.params))
        params, multiply_adds, _ = compute_cost(replace(wanted.model, blocks=blocks), started.shards.classes)
        excess = broken(wanted, params, multiply_adds)
        if not excess:
            return Proposal(trial, trial.number, blocks, params, multiply_adds)
        reason = why(wanted, params, multiply_adds, excess)
        log.info("trial %d: refused, %s", trial.number, reason)
        facts = {"blocks": blocks, "params": params, "multiply_adds": multiply_adds, "reason": reason}
        database.refuse(started.trials, trial, excess, facts)
    raise ConfigError(
        f"{MAX_REFUSED} proposals in a row break the constraints; raise architecture.max_cost, which is "
        f"{wanted.max_cost:g}, or architecture.max_params"
    )


def broken(wanted: schema.Architecture, params: int, multiply_adds: int) -> dict[str, float]:
    """By how much a network exceeds each limit that it breaks, relative to the limit."""
    limits = {"multiply_adds": (multiply_adds, wanted.max_cost * wanted.target_multiply_adds)}
    if wanted.max_params is not None:
        limits["params"] = (params, float(wanted.max_params))
    return {name: value / limit - 1 for name, (value, limit) in limits.items() if value > limit}


def why(wanted: schema.Architecture, params: int, multiply_adds: int, excess: dict[str, float]) -> str:
    """The limits that are broken, with the numbers."""
    says = {
        "multiply_adds": f"{multiply_adds:,} multiply-adds are more than {wanted.max_cost:g} times the target "
        f"{wanted.target_multiply_adds:,.0f}",
        "params": f"{params:,} parameters are more than {wanted.max_params or 0:,}",
    }
    return "; ".join(says[name] for name in excess)


def proposal_overrides(config: schema.Config, asked: Proposal) -> list[str]:
    """One trial in the words of the command line."""
    wanted = config.architecture
    model = replace(wanted.model, blocks=asked.blocks)
    return [*compose.to_overrides("model", model), *compose.to_overrides("recipe", wanted.recipe)]


@asynccontextmanager
async def heartbeat(started: ArchitectureRun, asked: Proposal) -> AsyncIterator[None]:
    """Says that the trial lives for as long as the context is open, so that nobody else gives it out again."""

    async def beats() -> None:
        while True:
            await asyncio.sleep(database.BEAT_S)
            with suppress(EffnetError):  # the next beat may reach the database
                await asyncio.to_thread(database.record_heartbeat, started.trials, asked.trial)

    beating = asyncio.create_task(beats())
    try:
        yield
    finally:
        beating.cancel()


async def report_result(started: ArchitectureRun, asked: Proposal, result: TrainResult) -> None:
    """A trained proposal: its minival accuracy and its cost."""
    facts = {
        **_facts(asked),
        "accuracy": result.minival_top1,
        "n": result.n_minival,
        "mlflow_run": result.mlflow_run,
        "job": result.job,
    }
    values = (result.minival_top1, float(asked.multiply_adds))
    await asyncio.to_thread(database.complete, started.trials, asked.trial, values, facts)


async def report_failure(started: ArchitectureRun, asked: Proposal, error: Exception) -> None:
    """A proposal that could not be trained: it diverged, or did not fit into memory. The search goes on without it."""
    reason = first_line(error)
    log.warning("trial %d failed: %s", asked.number, reason)
    await asyncio.to_thread(database.fail, started.trials, asked.trial, {**_facts(asked), "reason": reason})


def requeue(started: ArchitectureRun, asked: Proposal) -> None:
    """A proposal whose training was broken off from outside: the same command takes it up again at once."""
    with suppress(EffnetError):  # else it is found lost after a while
        database.requeue(started.trials, asked.number)


def _facts(asked: Proposal) -> dict[str, Any]:
    return {"blocks": asked.blocks, "params": asked.params, "multiply_adds": asked.multiply_adds}


@task(task_run_name="sum up", **policy.BOOKKEEPING)
async def record_architecture(config: schema.Config, started: ArchitectureRun) -> dict[str, Any]:
    """Leaves the search's facts for the report, and in its MLflow run.

    Raises:
        JobError: no trial finished.
    """
    return await asyncio.to_thread(_record, config, started)


def _record(config: schema.Config, started: ArchitectureRun) -> dict[str, Any]:
    from infra.tracking import runs

    run = started.mlflow_run
    runs_url = runs.run_url(run).removesuffix(run)  # every trial is of the same experiment
    facts = {
        **summary(config.architecture, database.list_trials(started.trials), runs_url),
        "data": started.shards.name,
        "found": started.done_before,
        "command": f"effnet architecture profile={config.profile}",
    }
    whole = report_results.publish_part(config, "architecture", facts, report_results.digests([started.shards]))
    runs.log_text(run, json.dumps(whole, indent=1), "architecture.json")
    best = facts["best"]
    numbers = {key: float(best[key]) for key in ("reward", "accuracy", "multiply_adds", "params")}
    runs.finish_run(run, "FINISHED", {f"best_{key}": value for key, value in numbers.items()})
    return whole


def summary(wanted: schema.Architecture, found: list[database.TrialRecord], runs_url: str = "") -> dict[str, Any]:
    """All trials with reward and front, the best by reward, and B0's own.

    Raises:
        JobError: no trial finished; the message holds the first one's reason.
    """
    listed = [each for each in found if each.state in ("complete", "refused", "failed")]
    rows = [_row(wanted, each, runs_url) for each in listed]
    done = [row for row in rows if row["state"] == "complete"]
    broke = [f"trial {row['number']}: {row['reason']}" for row in rows if row["state"] == "failed"]
    if not done:
        raise JobError(f"no trial of the architecture search finished; {broke[0] if broke else 'none was started'}")
    for row, front in zip(done, space.pareto([(r["accuracy"], r["multiply_adds"]) for r in done]), strict=True):
        row["pareto"] = front
    best = max(done, key=lambda row: row["reward"])
    baseline = next((row for row in done if row["blocks"] == B0_BLOCKS), None)
    return {
        "objective": {"exponent": wanted.exponent, "target_multiply_adds": wanted.target_multiply_adds},
        "trials": rows,
        "best": best,
        "baseline": baseline,
        "verdict": verdict(best, baseline, len(done)),
        "sampler": wanted.sampler,
        "seed": wanted.seed,
        "points_of_the_space": space.size(),
        "missing": broke + ([] if baseline else ["B0's own blocks did not train"]),
    }


def _row(wanted: schema.Architecture, trial: database.TrialRecord, runs_url: str) -> dict[str, Any]:
    facts, accuracy = trial.facts, trial.facts.get("accuracy")
    cost = facts["multiply_adds"]
    scored = None if accuracy is None else space.reward(accuracy, cost, wanted.target_multiply_adds, wanted.exponent)
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
    """How the best by reward stands to B0's own blocks, in words."""
    scored = f"reward {best['reward']:.2f}, {best['accuracy']:.2f} ± {best['standard_error']:.2f} % of {best['n']}"
    said = f"trial {best['number']} is best of {trials} ({scored} minival images)"
    if baseline is None:
        return f"{said}; B0's own blocks did not train"
    if best["number"] == baseline["number"]:
        return f"{said}: B0's own blocks"
    margin = best["reward"] - baseline["reward"]
    error = best["standard_error"] * best["reward"] / best["accuracy"] if best["accuracy"] else 0.0
    apart = "more than" if margin > error else "not more than"
    return f"{said}; that is {margin:.2f} above B0's own blocks, {apart} one standard error ({error:.2f})"
