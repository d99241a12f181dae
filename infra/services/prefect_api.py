"""A minimal client of Prefect's API with password and CSRF token; importing Prefect's client takes seconds."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.services import http

_READS = ("GET", "HEAD")


@dataclass(frozen=True)
class PrefectApi:
    """Address of the API (``url`` ends with /api) and ``user:password``, empty if it needs none."""

    url: str
    auth: str = ""
    client: str = field(default_factory=lambda: str(uuid.uuid4()))  # Prefect keeps one CSRF token per client
    _tokens: dict[str, str] = field(default_factory=dict)


def from_environment(environment: Mapping[str, str]) -> PrefectApi:
    """Returns the API that Prefect's own clients would use with these variables."""
    return PrefectApi(environment["PREFECT_API_URL"], environment.get("PREFECT_API_AUTH_STRING", ""))


def call(api: PrefectApi, method: str, path: str, body: Any = None, timeout_s: float = 5.0) -> tuple[int, Any]:
    """Returns status and decoded JSON answer of ``path``, which starts with a slash; status 0 without an answer."""
    status, answer = http.call(method, api.url + path, body, timeout_s, _headers(api, method))
    if status == 403 and api._tokens:  # expired after an hour, or the server has a new database
        api._tokens.clear()
        status, answer = http.call(method, api.url + path, body, timeout_s, _headers(api, method))
    return status, answer


def _headers(api: PrefectApi, method: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    if api.auth:
        headers["Authorization"] = f"Basic {base64.b64encode(api.auth.encode()).decode()}"
    if method in _READS:
        return headers
    if not api._tokens:
        status, answer = http.call("GET", f"{api.url}/csrf-token?client={api.client}", headers=headers)
        if status == 200:  # 422: the server does not use CSRF tokens
            api._tokens["token"] = answer["token"]
    if api._tokens:
        headers |= {"Prefect-Csrf-Token": api._tokens["token"], "Prefect-Csrf-Client": api.client}
    return headers
