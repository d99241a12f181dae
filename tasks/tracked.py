"""MLflow runs end with their work: also with work that fails, or that is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from infra.errors import EffnetError, PreemptedError


@asynccontextmanager
async def finish_run_on_error(run: str) -> AsyncIterator[None]:
    """Ends an MLflow run that the block leaves by an error; the same command sets it to running again.

    Args:
        run: Id of the run; empty for none.
    """
    try:
        yield
    except BaseException as error:
        from infra.tracking import runs

        if run:
            with suppress(EffnetError):  # the error of the work matters more than one of MLflow
                await asyncio.to_thread(runs.finish_run, run, status_of(error), {})
        raise


def status_of(error: BaseException) -> Literal["FAILED", "KILLED"]:
    """KILLED for work that was stopped from outside, by a user or a scheduler, and FAILED for any other error."""
    return "FAILED" if isinstance(error, Exception) and not isinstance(error, PreemptedError) else "KILLED"
