"""A minimal client of Prefect's API with password and CSRF token; the only file that speaks it without Prefect.

Not Prefect's ``SyncPrefectClient``: importing it takes 0.95 s and this module 0.04 s (``python -X importtime``, median
of 5, AMD EPYC), which every command that starts or finds the services would pay. It also answers a busy server with
sleeps of 2, 4 and 8 s, where the callers here have shorter deadlines.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.services import http

_READS = ("GET", "HEAD")
_NO_CSRF = 422  # what a server answers that asks for no token


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
