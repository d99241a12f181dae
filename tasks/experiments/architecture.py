"""Bookkeeping of the architecture search: proposals, refused and trained trials, and the result.

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
from typing import TYPE_CHECKING, Any

from prefect import task

from conf import compose, schema
from conf.text import logger
from infra import store
from infra import trials as database
from infra.errors import ConfigError, DataError, EffnetError, NotFoundError, first_line
from infra.store.json_objects import NUMBER, check_object, read_object
from models.experiments import architecture_space as space
from models.experiments.architecture_search import B0_BLOCKS, broken, summarize, why, with_lead
from models.networks.efficientnet import block_strings
from models.networks.efficientnet.variants import B0_STAGES
from models.results import ArchitectureResult, ShardResult, TrainResult
from tasks import policy
from tasks.jobs import work_key
from tasks.report import results as report_results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logger()
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


def open_search(config: schema.Config, shards: ShardResult) -> tuple[str, database.Trials]:
    """Returns the key and the trials of the search on these shards; raises the errors of ``start_architecture``."""
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
    return name, opened


def _start(config: schema.Config, shards: ShardResult) -> ArchitectureRun:
    from infra.tracking import runs

    name, opened = open_search(config, shards)
    database.enqueue(opened, space.point(B0_STAGES))
    run = runs.start_run(
        config.experiment,
        "architecture search",
        name,
        params={"architecture": compose.to_dict(config.architecture), "data": compose.to_dict(config.data)},
        tags={"role": "architecture"},
    )
    done = sum(trial.state == "complete" for trial in database.list_trials(opened))
    return ArchitectureRun(opened, shards, run, done)


async def propose(config: schema.Config, started: ArchitectureRun) -> Proposal | None:
    """The next proposal that meets the constraints; None when ``architecture.trials`` have ended.

    A proposal that breaks a constraint, or has the network of an earlier trial, is reported to the sampler as refused,
    and another is requested. A trial whose process died is requeued. While other workers train the last trials this
    waits, since one of them may be lost.

    Raises:
        ConfigError: Every proposal is refused.
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
        twin = None if excess else _find_twin(options, started, trial.number, blocks)
        if not excess and twin is None:
            return Proposal(trial, trial.number, blocks, params, multiply_adds)
        reason = why(options, params, multiply_adds, excess) if excess else f"the network of trial {twin}"
        log.info("trial %d: refused, %s", trial.number, reason)
        facts = {"blocks": blocks, "params": params, "multiply_adds": multiply_adds, "reason": reason}
        database.refuse(started.trials, trial, excess, facts)
    raise ConfigError(
        f"{MAX_REFUSED} proposals in a row break the constraints or repeat a network; raise architecture.max_cost, "
        f"which is {options.max_cost:g}, or architecture.max_params, or lower architecture.trials"
    )


def _find_twin(options: schema.Architecture, started: ArchitectureRun, number: int, blocks: list[str]) -> int | None:
    """The earlier trial whose network a proposal repeats, by its blocks or after rounding; None if it is new.

    Its training would be the same to the bit, and its accuracy would count twice in the choice of the best. A worker
    on another machine may propose the same at the same time: the later trial is the repetition.
    """
    network = _resolve(options.model, tuple(blocks))
    for record in database.list_trials(started.trials)[:number]:
        if record.state not in ("complete", "failed", "running") or record.point.keys() != space.choices().keys():
            continue
        if _resolve(options.model, tuple(block_strings.encode(space.stages(record.point)))) == network:
            return record.number
    return None


def _resolve(model: schema.Model, blocks: tuple[str, ...]) -> str:
    """Description of the network that blocks are at the size of the search."""
    from models.networks.build import resolve_architecture

    return repr(resolve_architecture(replace(model, blocks=list(blocks))))


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
async def record_architecture(config: schema.Config, started: ArchitectureRun) -> ArchitectureResult:
    """Writes the search's summary to the report and to its MLflow run.

    Raises:
        JobError: No trial finished.
    """
    return await asyncio.to_thread(_record, config, started)


def _read_minival(config: schema.Config, job: str) -> NDArray[np.bool_] | None:
    """Which images of minival a trial classified correctly; None where that is not stored, or no longer."""
    from models.training import per_image

    job_uri = store.join(config.storage, "jobs", job)
    uri = store.join(job_uri, "result.json")
    try:
        return per_image.read_minival(job_uri, check_object(uri, read_object(uri), n_minival=NUMBER)) if job else None
    except (DataError, NotFoundError):
        return None


def _record(config: schema.Config, started: ArchitectureRun) -> ArchitectureResult:
    from infra.tracking import runs

    run = started.mlflow_run
    runs_url = runs.run_url(run).removesuffix(run)  # all trials are in the same experiment
    records = database.list_trials(started.trials)
    summed = summarize(config.architecture, records, runs_url)
    jobs = {record.number: str(record.facts.get("job", "")) for record in records}
    ours, theirs = (_read_minival(config, jobs[one.number]) if one else None for one in (summed.best, summed.baseline))
    result = replace(
        with_lead(config.architecture, summed, ours, theirs),
        data=started.shards.name,
        found=started.done_before,
        command=f"effnet architecture profile={config.profile}",
    )
    part = report_results.publish_part(config, "architecture", result, report_results.digests([started.shards]))
    runs.log_text(run, json.dumps(part, indent=1), "architecture.json")
    scores = {"minival/top1": "accuracy", "search/reward": "reward"}
    metrics = {name: float(getattr(result.best, key)) for name, key in scores.items()}
    tags = {f"best_{key}": str(getattr(result.best, key)) for key in ("multiply_adds", "params")}
    runs.finish_run(run, "FINISHED", metrics, tags)
    return result
