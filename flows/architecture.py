"""The search of the baseline: blocks from MnasNet's space, accuracy against multiply-adds, B0's own among them."""

from __future__ import annotations

from functools import partial

from prefect import flow

from conf import schema
from flows.configure import configure, name_runs_by
from flows.shard import ensure_shards
from flows.train import train
from infra.errors import CapacityError, DivergedError, JobError, ResumeError
from models.results import ArchitectureResult
from tasks import architecture as search
from tasks.dispatch import dispatch, fan_out

# Failures of a single network. Any other error would fail every trial: it ends the search; the same command resumes.
TRIAL_FAILED = (DivergedError, CapacityError, JobError, ResumeError)


@flow(name="architecture", flow_run_name=name_runs_by(lambda config, _: f"architecture {config.profile}"))
async def architecture(overrides: list[str]) -> ArchitectureResult:
    """Trains proposals until ``architecture.trials`` have ended, ``launch.jobs_at_once`` at a time.

    The same command resumes where it stopped; on another machine with the same ``architecture.storage`` it joins the
    same search.

    Returns:
        Every trial with its state, reward and whether it is on the Pareto front; the best, and B0's own.
    """
    config, overrides = configure(overrides)
    shards = await ensure_shards(config.data, config.storage)
    started = await search.start_architecture(config, shards)
    workers = [partial(worker, config, overrides, started)] * config.launch.jobs_at_once
    for ended in await fan_out(config, workers):
        if isinstance(ended, BaseException):
            raise ended
    return await search.record_architecture(config, started)


async def worker(config: schema.Config, overrides: list[str], started: search.ArchitectureRun) -> None:
    """Trains one proposal after another; one that diverges does not end the search."""
    while (proposal := await search.propose(config, started)) is not None:
        name = f"architecture {proposal.number}"
        words = [*overrides, *search.proposal_overrides(config, proposal)]
        try:
            async with search.heartbeat(started, proposal):
                result = await dispatch(
                    train, config, words, title=name, parent_run=started.mlflow_run, role="trial", label=name
                )
        except TRIAL_FAILED as error:
            await search.report_failure(started, proposal, error)
        except BaseException:
            search.requeue(started, proposal)
            raise
        else:
            await search.report_result(started, proposal, result)
