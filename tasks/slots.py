"""One slot of Prefect's concurrency limit ``accelerator``, which counts jobs over all flows and machines of a server.

Prefect's own ``concurrency()`` waits without a word, and stops renewing its lease for good when the server was away
for a few seconds: the slot is then given to the next job although this one still runs.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectNotFound

from conf.text import logger
from infra.errors import ConfigError
from infra.services import leases

SLOT = "accelerator"
LEASE_S = 60  # the least that Prefect takes: a killed machine's slot is free again after so long
_RENEW_S = 15.0  # three tries before a lease runs out
_ASK_S = 2.0  # between two tries to get a slot; each with chance, so that many waiters do not come together
FIRST_WORD_S, _NEXT_WORD_S = 10.0, 180.0
_RELEASE_S = 10.0
_LOCKED, _GONE = 423, 410

log = logger()


@asynccontextmanager
async def slot(label: str) -> AsyncIterator[None]:
    """Waits for a slot, reports what it waits for, and holds it while the block runs.

    Args:
        label: Name of the job, for people.

    Raises:
        ConfigError: Prefect refuses the request; waiting would not help.
    """
    context = TaskRunContext.get()
    holder = context.task_run.id if context else uuid4()
    home = os.environ.get("PREFECT_HOME")
    with leases.alive(Path(home), str(holder)) if home else nullcontext():
        async with get_client() as client:
            held = [await _wait(client, holder, label)]
            keeper = asyncio.create_task(_keep(client, held, holder, label))
            try:
                yield
            finally:
                keeper.cancel()
                release = asyncio.create_task(_release(client, held[-1]))
                await asyncio.shield(release)  # a second Ctrl-C ends the wait, not the release


async def _wait(client: PrefectClient, holder: UUID, label: str) -> UUID:
    next_word = time.monotonic() + FIRST_WORD_S
    while True:
        if lease := await _take(client, holder):
            return lease
        if time.monotonic() >= next_word:
            next_word = time.monotonic() + _NEXT_WORD_S
            log.info("%s: waiting for a slot of `%s`, %s", label, SLOT, await _situation(client))
        await asyncio.sleep(_ASK_S * (0.5 + random.random()))


async def _take(client: PrefectClient, holder: UUID) -> UUID | None:
    """The lease of a slot; None while all are taken or the server is away."""
    owner = ConcurrencyLeaseHolder(type="task_run", id=holder)
    try:
        answer = await client.increment_concurrency_slots_with_lease([SLOT], 1, "concurrency", LEASE_S, owner)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code == _LOCKED or code >= 500:
            return None
        raise ConfigError(f"Prefect gives no slot of `{SLOT}` ({code}): {error.response.text[:300]}") from error
    except httpx.TransportError:
        return None
    return UUID(answer.json()["lease_id"])


async def _keep(client: PrefectClient, held: list[UUID], holder: UUID, label: str) -> None:
    """Renews the last lease of ``held``; takes another slot when the server has given this one away."""
    while True:
        await asyncio.sleep(_RENEW_S)
        try:
            await client.renew_concurrency_lease(held[-1], LEASE_S)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != _GONE:
                continue
            with suppress(ConfigError):
                if lease := await _take(client, holder):
                    held.append(lease)
                else:
                    log.warning("%s continues without its slot of `%s`: another job has it now", label, SLOT)
        except httpx.TransportError:
            continue  # Prefect is away; the job does not need it


async def _release(client: PrefectClient, lease: UUID) -> None:
    with suppress(httpx.HTTPError, TimeoutError):  # it runs out by itself
        await asyncio.wait_for(client.release_concurrency_slots_with_lease(lease), _RELEASE_S)


async def _situation(client: PrefectClient) -> str:
    """Who holds the slots, where Prefect notes it on this machine; else how many are taken."""
    try:
        limit = await client.read_global_concurrency_limit_by_name(SLOT)
        home = os.environ.get("PREFECT_HOME")
        noted = leases.read(Path(home)) if home else []
        holders = [lease.holder for lease in noted if str(limit.id) in lease.limits and lease.holder]
        names = [await _name(client, holder) for holder in holders]
    except httpx.HTTPError:
        return "Prefect does not answer"
    return f"held by {', '.join(names)}" if names else f"{limit.active_slots} of {limit.limit} are taken"


async def _name(client: PrefectClient, holder: str) -> str:
    try:
        return (await client.read_task_run(UUID(holder))).name
    except ObjectNotFound:
        return f"task run {holder}"
