"""What a flow run shows when it fails: one line that says what is wrong and what to do, as a command in a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import httpx
from prefect.states import Failed

from conf.compose import OverrideError
from conf.text import logger, printable
from flows.configure import deployment_run
from infra.errors import ConfigError, EffnetError, TransientError

P = ParamSpec("P")
R = TypeVar("R")


def report_failures(run: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Ends the run of a deployment that fails for a known reason in a state and a log line with that reason.

    Prefect would log a traceback. In a terminal the error is raised, and the command prints its line.

    Args:
        run: Function of a flow, below ``@flow``.
    """

    @wraps(run)
    async def run_and_report(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await run(*args, **kwargs)
        except Exception as error:
            known = error if isinstance(error, EffnetError | OverrideError) else explain_prefect(error)
            if known is None or deployment_run() is None:
                raise
            message = printable(str(known))
            logger().error("%s", message)
            return cast(R, Failed(message=message))

    return run_and_report


def explain_prefect(error: Exception) -> EffnetError | None:
    """Returns the error of a request to Prefect as an error with an exit code; None for any other error.

    Prefect's own client has then repeated the request (``PREFECT_CLIENT_MAX_RETRIES``). It alone uses httpx here, and
    may raise another error from that of httpx.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, httpx.HTTPError | EffnetError):
        cause = cause.__cause__
    if not isinstance(cause, httpx.HTTPError):
        return None
    url, status = os.environ.get("PREFECT_API_URL", ""), 0
    if isinstance(cause, httpx.HTTPStatusError):
        status = cause.response.status_code
    if status in (401, 403):
        return ConfigError(f"Prefect at {url} refuses the credentials ({status})")
    if 0 < status < 500 and status not in (408, 429):
        return None
    what = status or type(cause).__name__
    again = "the same command" if deployment_run() is None else "another run with the same parameters"
    return TransientError(f"Prefect at {url} does not answer ({what}); {again} does what is missing")
