"""The one seam between "run this flow here" and "run it as a deployment on a work pool"."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from prefect import Flow, runtime
from prefect.deployments import run_deployment

from conf import schema
from infra.errors import JobError


async def dispatch(
    flow: Flow[..., Any], config: schema.Config, overrides: list[str], *, title: str, **parameters: Any
) -> Any:
    """Runs ``flow(overrides, **parameters)`` as a child of the running flow and returns its result.

    With ``dispatch=workpool`` its deployment runs first, on the pool's workers, under an idempotency key, so that a
    retried flow run adopts its children. The local call then finds every result by its digest and only reads it:
    nothing but references crosses machines.

    Args:
        flow: Async flow that takes ``overrides`` and returns numbers and references.
        config: Configuration with ``dispatch``.
        overrides: Overrides that the flow composes its configuration from.
        title: Name of the flow run in the UI.
        parameters: Further parameters of the flow, as JSON values.

    Raises:
        JobError: The deployment's run did not complete.
    """
    if config.dispatch == "workpool":
        # Each worker has its run folder: it may be on another machine.
        elsewhere = [word for word in overrides if not word.startswith("run_dir=")]
        await _run_on_work_pool(flow.name, {"overrides": [*elsewhere, "dispatch=here"], **parameters}, title)
    child: Callable[..., Awaitable[Any]] = flow.with_options(flow_run_name=title)
    return await child(overrides=overrides, **parameters)


async def fan_out(config: schema.Config, calls: Iterable[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Runs all calls concurrently and returns their results in order, with the exception of a call that failed.

    In this process at most one call more than there are job slots runs at a time, in order: more would only wait, and
    bursts of flow runs make Prefect on SQLite answer 503 and its client sleep. A work pool gets all at the same time.
    """
    pending = list(calls)
    slots = asyncio.Semaphore(len(pending) if config.dispatch == "workpool" else config.launch.jobs_at_once + 1)

    async def one(call: Callable[[], Awaitable[Any]]) -> Any:
        async with slots:
            return await call()

    return await asyncio.gather(*(one(call) for call in pending), return_exceptions=True)


async def _run_on_work_pool(name: str, parameters: dict[str, Any], title: str) -> None:
    request = json.dumps([runtime.flow_run.id, parameters], sort_keys=True)
    run = await run_deployment(  # type: ignore[misc]
        name=f"{name}/{name}",
        parameters=parameters,
        flow_run_name=title,
        idempotency_key=hashlib.sha256(request.encode()).hexdigest(),
        as_subflow=True,
        timeout=None,
    )
    if run.state is None or not run.state.is_completed():
        state = "unknown" if run.state is None else f"{run.state.name}: {run.state.message}"
        raise JobError(f"{title}: deployment {name}/{name} ended as {state}")
