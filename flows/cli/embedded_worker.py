"""The worker of the embedded Prefect: ``python -m flows.cli.embedded_worker``, which ``effnet up`` starts.

It is two of Prefect's workers in one process. One takes whole flows without a limit, because most of them wait. The
other takes jobs of ``launch.engine=workpool``, at most as many as the concurrency limit ``accelerator``
(``launch.jobs_at_once``). A limit of the deployment would also count the jobs of other workers, and without any limit
this machine would take the jobs that others could run and let them wait here.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import anyio
import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectAlreadyExists, PrefectException
from prefect.logging.configuration import setup_logging
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessWorker

from infra.services.deployments import JOBS_QUEUE, JOBS_WORKER, LIMIT
from infra.services.programs import WORK_POOL, WORKER

FOLLOW_S = 5.0  # between two looks at the limit, which another `effnet up` may change


async def run() -> None:
    """Runs both workers until the process is stopped."""
    async with get_client() as client:
        with suppress(ObjectAlreadyExists):  # a worker may not poll a queue that does not exist yet
            await client.create_work_queue(JOBS_QUEUE, work_pool_name=WORK_POOL)
    flows = ProcessWorker(WORK_POOL, ["default"], WORKER)
    jobs = ProcessWorker(WORK_POOL, [JOBS_QUEUE], JOBS_WORKER, limit=1)
    async with anyio.create_task_group() as group:
        group.start_soon(flows.start)
        group.start_soon(jobs.start)
        group.start_soon(_follow_limit, jobs)


async def _follow_limit(worker: ProcessWorker) -> None:
    while True:
        if worker.is_setup:
            with suppress(httpx.HTTPError, PrefectException):
                limit = await worker.client.read_global_concurrency_limit_by_name(LIMIT)
                worker.limiter.total_tokens = limit.limit
        await asyncio.sleep(FOLLOW_S)


if __name__ == "__main__":
    setup_logging()
    setup_signal_handlers_worker(os.getpid(), f"the worker {WORKER}", print)
    with suppress(KeyboardInterrupt):
        asyncio.run(run())
