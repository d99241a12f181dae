"""A minimal HTTP client without proxies, redirects or dependencies, for health checks and small API calls."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


def call(
    method: str, url: str, body: Any = None, timeout_s: float = 5.0, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Returns status and decoded JSON answer (None if it is not JSON); status 0 if there is no answer."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.netloc, timeout=timeout_s)
    except http.client.InvalidURL:  # no number as port
        return 0, None
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, target, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def answers(url: str) -> bool:
    """Whether a GET of ``url`` returns 200 within two seconds."""
    return call("GET", url, timeout_s=2.0)[0] == 200
