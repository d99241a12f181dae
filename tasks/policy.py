"""Retry and cache settings by kind of work, and which errors are retried."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from infra.errors import TransientError


async def is_transient(task: Task[Any, Any], run: TaskRun, state: State) -> bool:  # noqa: ARG001 - Prefect's signature
    """Whether a failure is retried: only those of external services; retrying cannot repair a user's mistake."""
    try:
        await state.aresult()
    except TransientError:
        return True
    except BaseException:  # noqa: BLE001 - no other failure is retried
        return False
    return False


# effnet's keys are digests of inputs, stored in the object store: a second run finds its results there, on any
# machine. Prefect's cache would use keys of run id and source, and Prefect's storage.
_COMMON: dict[str, Any] = {"cache_policy": NO_CACHE, "retry_condition_fn": is_transient, "retry_jitter_factor": 0.5}

STORE_WORK: dict[str, Any] = {**_COMMON, "retries": 4, "retry_delay_seconds": [2, 10, 30, 60]}
TRAINING: dict[str, Any] = {**_COMMON, "retries": 3, "retry_delay_seconds": [5, 30, 120]}
# Shows what belongs together in Prefect. Nothing is retried here: the tasks inside retry themselves.
GROUP: dict[str, Any] = {"cache_policy": NO_CACHE}
BOOKKEEPING: dict[str, Any] = {**_COMMON, "retries": 4, "retry_delay_seconds": [2, 10, 30, 60]}
