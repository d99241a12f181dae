"""A minimal client of Prefect's API with password and CSRF token; the only file that speaks it without Prefect.

Not Prefect's ``SyncPrefectClient``: importing it takes 0.95 s and this module 0.04 s (``python -X importtime``, median
of 5, AMD EPYC), which every command that starts or finds the services would pay. It also answers a busy server with
sleeps of 2, 4 and 8 s, where the callers here have shorter deadlines.
"""

from __future__ import annotations

import base64
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.errors import ConfigError, TransientError
from infra.services import http

_READS = ("GET", "HEAD")
_NO_CSRF = 422  # what a server answers that asks for no token
_BUSY_S = 60.0  # a server on SQLite answers 503 during another write
_PAUSE_S = 0.5  # on average: supervisors that a busy server refused must not call again at the same moment


@dataclass(frozen=True)
class PrefectApi:
    """Address of the API (``url`` ends with /api), and ``user:password`` or a key of Prefect Cloud if it needs one."""

    url: str
    auth: str = ""
    key: str = ""
    client: str = field(default_factory=lambda: str(uuid.uuid4()))  # Prefect keeps one CSRF token per client
    _tokens: dict[str, str] = field(default_factory=dict)


def from_environment(environment: Mapping[str, str]) -> PrefectApi:
    """Returns the API that Prefect's own clients would use with these variables."""
    auth, key = (environment.get(name, "") for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"))
    return PrefectApi(environment["PREFECT_API_URL"].rstrip("/"), auth, key)


def request(
    api: PrefectApi, method: str, path: str, body: Any = None, *, known: tuple[int, ...] = (), restart_s: float = 5.0
) -> tuple[int, Any]:
    """Returns status and decoded answer of ``path``; waits up to a minute for a busy server.

    Args:
        api: Address and credentials.
        method: HTTP method.
        path: Path below the address; starts with a slash.
        body: Sent as JSON.
        known: Statuses beside success that the caller handles.
        restart_s: How long a server that does not answer at all is called again.

    Raises:
        ConfigError: The server refuses the credentials or the request.
        TransientError: No answer, or the server stays busy.
    """
    failed_at: float | None = None
    while True:
        status, answer = call(api, method, path, body, timeout_s=30.0)
        if 200 <= status < 300 or status in known:
            return status, answer
        if status in (401, 403):
            raise ConfigError(
                f"Prefect at {api.url} refuses the credentials ({status}); "
                "set PREFECT_API_AUTH_STRING=USER:PASSWORD or PREFECT_API_KEY"
            )
        if 0 < status < 500 and status != 429:
            raise ConfigError(f"Prefect at {api.url} refuses {method} {path}: {status} {str(answer)[:300]}")
        failed_at = failed_at or time.monotonic()  # a first call may itself have taken its 30 s
        if time.monotonic() - failed_at > (_BUSY_S if status else restart_s):
            raise TransientError(f"Prefect at {api.url} does not answer {method} {path} ({status or 'no answer'})")
        time.sleep(_PAUSE_S * (0.5 + random.random()))


def call(api: PrefectApi, method: str, path: str, body: Any = None, timeout_s: float = 5.0) -> tuple[int, Any]:
    """Returns status and decoded JSON answer of ``path``, which starts with a slash; status 0 without an answer."""
    status, answer = _try(api, method, path, body, timeout_s)
    if status == 403 and api._tokens:  # expired after an hour, or the server has a new database
        api._tokens.clear()
        status, answer = _try(api, method, path, body, timeout_s)
    return status, answer


def _try(api: PrefectApi, method: str, path: str, body: Any, timeout_s: float) -> tuple[int, Any]:
    headers: dict[str, str] = {}
    if api.auth:
        headers["Authorization"] = f"Basic {base64.b64encode(api.auth.encode()).decode()}"
    elif api.key:
        headers["Authorization"] = f"Bearer {api.key}"
    if method not in _READS:
        if not api._tokens:
            status, answer = http.call("GET", f"{api.url}/csrf-token?client={api.client}", None, timeout_s, headers)
            if status == 200:
                api._tokens["token"] = answer["token"]
            elif status != _NO_CSRF:  # without a token the request would be refused, and not because it is wrong
                return status, answer
        if api._tokens:
            headers |= {"Prefect-Csrf-Token": api._tokens["token"], "Prefect-Csrf-Client": api.client}
    return http.call(method, api.url + path, body, timeout_s, headers)
