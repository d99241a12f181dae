"""The search of the baseline: blocks from MnasNet's space, accuracy against multiply-adds, B0's own among them."""

from __future__ import annotations

import asyncio

from prefect import flow, task

from conf import schema
from flows.configure import configure, name_runs_by
from flows.failures import report_failures
from flows.shard import ensure_shards
from flows.train import train_network
from infra.errors import OF_ONE_NETWORK
from models.results import ArchitectureResult
from tasks import policy
from tasks.artifacts import link_run
from tasks.experiments import architecture as search
from tasks.tracked import finish_run_on_error


@flow(name="architecture", flow_run_name=name_runs_by(lambda config: f"architecture {config.profile}"))
@report_failures
async def architecture(overrides: list[str], profile: str | None = None, data: str | None = None) -> ArchitectureResult:
    """Trains proposals until ``architecture.trials`` have ended."""
    config, _ = configure(overrides, profile=profile, data=data)
    return await search_blocks(config)


@task(task_run_name="architecture", **policy.GROUP)
async def search_blocks(config: schema.Config) -> ArchitectureResult:
    """Trains proposals, ``launch.jobs_at_once`` at a time, and writes the report's part.

    The same command resumes where it stopped; on another machine with the same ``architecture.storage`` it joins the
    same search.

    Returns:
        Every trial with its state, reward and whether it is on the Pareto front; the best, and B0's own.
    """
    shards = await ensure_shards(config.data, config.storage)
    started = await search.start_architecture(config, shards)
    await link_run(started.mlflow_run)
    workers = (train_proposals(config, started) for _ in range(config.launch.jobs_at_once))
    async with finish_run_on_error(started.mlflow_run):
        for ended in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
        return await search.record_architecture(config, started)


async def train_proposals(config: schema.Config, started: search.ArchitectureRun) -> None:
    """Trains one proposal after another; one that diverges does not end the search."""
    while (proposal := await search.propose(config, started)) is not None:
        name = f"architecture {proposal.number}"
        trial = search.proposal_config(config, proposal)
        try:
            async with search.heartbeat(started, proposal):
                result = await train_network(trial, started.shards, started.mlflow_run, "trial", name)
        except OF_ONE_NETWORK as error:
            await search.report_failure(started, proposal, error)
        except BaseException:
            search.requeue(started, proposal)
            raise
        else:
            await search.report_result(started, proposal, result)
