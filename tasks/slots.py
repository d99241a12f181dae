"""A slot of Prefect's concurrency limit ``accelerator``, which counts the jobs of all flows and machines of a server.

Prefect's ``concurrency()`` waits without logging, and stops renewing its lease for good after the server was
unreachable for a few seconds: the slot then goes to the next job although this one still runs.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectNotFound

from conf import schema
from conf.text import logger
from infra.errors import ConfigError
from infra.launch.engine import ENGINES
from infra.services import leases

SLOT = "accelerator"
LEASE_S = 60  # Prefect's minimum; the slot of a killed machine is free again after this time
_RENEW_S = 15.0  # three attempts before a lease expires
_RETRY_S = 2.0  # mean time between two requests for a slot; random, so that waiters do not ask simultaneously
FIRST_LOG_S, _NEXT_LOG_S = 10.0, 180.0
_RELEASE_S = 10.0
_LOCKED, _GONE = 423, 410

log = logger()


def queue(launch: schema.Launch) -> AbstractAsyncContextManager[None]:
    """The queue of this process's jobs, in order: ``launch.jobs_at_once`` run, and the others are not yet task runs.

    Jobs of an engine with a queue are all submitted to it.
    """
    if not ENGINES[launch.engine].LIMITED:
        return nullcontext()
    return _semaphore(asyncio.get_running_loop(), launch.jobs_at_once)


@cache
def _semaphore(loop: asyncio.AbstractEventLoop, limit: int) -> asyncio.Semaphore:  # noqa: ARG001 - the cache key
    return asyncio.Semaphore(limit)


def slot_of(launch: schema.Launch, label: str) -> AbstractAsyncContextManager[None]:
    """A slot for a job that runs on this machine; other engines limit their jobs themselves."""
    return slot(label) if ENGINES[launch.engine].LIMITED else nullcontext()


@asynccontextmanager
async def slot(label: str, count: int = 1) -> AsyncIterator[None]:
    """Waits for slots, reports what it waits for, and holds them while the block runs.

    Args:
        label: Display name of the job.
        count: Number of slots.

    Raises:
        ConfigError: Prefect refuses the request; waiting would not help.
    """
    context = TaskRunContext.get()
    holder = context.task_run.id if context else uuid4()
    home = os.environ.get("PREFECT_HOME")
    with leases.alive(Path(home), str(holder)) if home else nullcontext():
        async with get_client() as client:
            held = [await _acquire(client, holder, label, count)]
            keeper = asyncio.create_task(_renew_lease(client, held, holder, label, count))
            try:
                yield
            finally:
                keeper.cancel()
                release = asyncio.create_task(_release(client, held[-1]))
                await asyncio.shield(release)  # a second Ctrl-C ends the wait, not the release


async def limit() -> int:
    """Returns the number of slots that there are, free and taken."""
    async with get_client() as client:
        return (await client.read_global_concurrency_limit_by_name(SLOT)).limit


async def _acquire(client: PrefectClient, holder: UUID, label: str, count: int) -> UUID:
    next_log = time.monotonic() + FIRST_LOG_S
    home = os.environ.get("PREFECT_HOME")
    while True:
        # In the order of arrival: else a command whose next job follows its last would keep all others waiting.
        first = home is None or leases.is_first(Path(home), str(holder))
        if first and (lease := await _try_acquire(client, holder, count)):
            return lease
        if time.monotonic() >= next_log:
            next_log = time.monotonic() + _NEXT_LOG_S
            slots = "a slot" if count == 1 else f"{count} slots"
            log.info("%s: waiting for %s of `%s`, %s", label, slots, SLOT, await _describe_holders(client))
        await asyncio.sleep(_RETRY_S * (0.5 + random.random()))


async def _try_acquire(client: PrefectClient, holder: UUID, count: int) -> UUID | None:
    """Requests slots; returns their lease, or None while fewer are free or the server is unreachable."""
    owner = ConcurrencyLeaseHolder(type="task_run", id=holder)
    try:
        answer = await client.increment_concurrency_slots_with_lease([SLOT], count, "concurrency", LEASE_S, owner)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code == _LOCKED or code >= 500:
            return None
        raise ConfigError(f"Prefect gives no slot of `{SLOT}` ({code}): {error.response.text[:300]}") from error
    except httpx.TransportError:
        return None
    return UUID(answer.json()["lease_id"])


async def _renew_lease(client: PrefectClient, held: list[UUID], holder: UUID, label: str, count: int) -> None:
    """Renews the last lease of ``held``; acquires another one if the server has reassigned its slots."""
    is_lost = False
    while True:
        await asyncio.sleep(_RENEW_S)
        try:
            await client.renew_concurrency_lease(held[-1], LEASE_S)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != _GONE:
                continue
            with suppress(ConfigError):
                if lease := await _try_acquire(client, holder, count):
                    held.append(lease)
                    is_lost = False
                elif not is_lost:  # a training may continue without its slot for days
                    log.warning("%s continues without its slot of `%s`: another job has it now", label, SLOT)
                    is_lost = True
        except httpx.TransportError:
            continue  # Prefect is unreachable; the job does not need it


async def _release(client: PrefectClient, lease: UUID) -> None:
    with suppress(httpx.HTTPError, TimeoutError):  # the lease expires by itself
        await asyncio.wait_for(client.release_concurrency_slots_with_lease(lease), _RELEASE_S)


async def _describe_holders(client: PrefectClient) -> str:
    """Names the holders of the slots if Prefect runs on this machine, else how many slots are taken."""
    try:
        limit = await client.read_global_concurrency_limit_by_name(SLOT)
        home = os.environ.get("PREFECT_HOME")
        recorded = leases.read(Path(home)) if home else []
        holders = [lease.holder for lease in recorded if str(limit.id) in lease.limits and lease.holder]
        names = [await _task_run_name(client, holder) for holder in holders]
    except httpx.HTTPError:
        return "Prefect does not answer"
    return f"held by {', '.join(names)}" if names else f"{limit.active_slots} of {limit.limit} are taken"


async def _task_run_name(client: PrefectClient, holder: str) -> str:
    try:
        return (await client.read_task_run(UUID(holder))).name
    except ObjectNotFound:
        return f"task run {holder}"
