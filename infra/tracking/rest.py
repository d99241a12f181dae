"""Requests to MLflow's REST API, for what a command only reads, and for aliases and tags.

Importing MLflow takes 1.7 s of CPU time, more than everything else that such a command does. User and password are sent
from here; any other way to log in that MLflow knows (a token, a plugin, a file of credentials, its own certificates) is
left to MLflow's own request function.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from conf.overrides import expand_home
from infra.errors import ConfigError, EffnetError, PermanentError, TransientError, first_line

if TYPE_CHECKING:
    from types import TracebackType

    from requests import Response, Session
    from urllib3 import BaseHTTPResponse, Retry
    from urllib3.connectionpool import ConnectionPool

PROBE_TIMEOUT_S = 10.0  # to answer that the server is healthy
_CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_KNOWN = {"MLFLOW_TRACKING_URI", _USER, _PASSWORD}
# Not the minute of MLflow's client (client.py), whose uploads share it: these are questions and tags.
_CONNECT_S, _ANSWER_S, _RETRIES = 5.0, 20.0, 2
_RETRIED = (408, 429, 500, 502, 503, 504)
_ALIAS = "registered-models/alias"  # answers INVALID_PARAMETER_VALUE if there is no such alias


class SimultaneousError(TransientError):
    """Another process wrote the same at the same time, and MLflow's database refused this one; it may try again."""


class MissingError(PermanentError):
    """MLflow has no model, version, alias or run of this name."""


def address() -> str:
    """Returns the tracking URI without a trailing slash.

    Raises:
        ConfigError: The URI is not set, is not that of a server, or contains a password, which would appear in every
            log line.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not uri:
        raise ConfigError("MLFLOW_TRACKING_URI is not set: start MLflow with `effnet up` or set services.mlflow")
    if urlsplit(uri).scheme not in ("http", "https"):
        raise ConfigError(f"MLFLOW_TRACKING_URI must be the http:// or https:// address of a server, is {uri!r}")
    if "@" in urlsplit(uri).netloc:
        raise ConfigError(f"MLFLOW_TRACKING_URI must hold no user and password: {_CREDENTIALS}")
    return uri


def get(path: str, **fields: Any) -> dict[str, Any]:
    """Returns MLflow's answer to a GET of ``path``, e.g. ``runs/get``.

    Raises:
        TransientError: The server does not answer within seconds, or fails.
        ConfigError: The server refuses the credentials, or no address is set.
        MissingError: The requested object does not exist.
        PermanentError: The server refuses the request.
    """
    return _call("GET", path, fields)


def post(path: str, **fields: Any) -> dict[str, Any]:
    """Returns MLflow's answer to a POST of ``fields``; errors are those of ``get``."""
    return _call("POST", path, fields)


def patch(path: str, **fields: Any) -> dict[str, Any]:
    """Returns MLflow's answer to a PATCH of ``fields``; errors are those of ``get``."""
    return _call("PATCH", path, fields)


def pages(method: str, path: str, key: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """Yields the entries ``key`` of all pages of a search; errors are those of ``get``."""
    token = ""
    while True:
        answer = _call(method, path, fields | ({"page_token": token} if token else {}))
        yield from answer.get(key, [])
        if not (token := answer.get("next_page_token", "")):
            return


def probe(uri: str) -> None:
    """Raises a ``TransientError`` if no server answers at ``uri`` within ``PROBE_TIMEOUT_S``."""
    _send(uri, "GET", "/health", {}, PROBE_TIMEOUT_S)


def translate_error(error: Exception, status: int, uri: str) -> EffnetError:
    """Returns MLflow's refusal as an error with an exit code."""
    text = first_line(error)[:300]
    if status in (401, 403):
        return ConfigError(f"MLflow at {uri} refuses access ({status}): {_CREDENTIALS} ({text})")
    if "unique constraint" in text.lower():  # "UNIQUE constraint failed" of SQLite, "violates unique" of PostgreSQL
        return SimultaneousError(f"MLflow at {uri}: another process wrote the same: {text}")
    if status >= 500 or status in (408, 429):
        return TransientError(f"MLflow at {uri} fails ({status}): {text}")
    return PermanentError(f"MLflow at {uri} refuses the request ({status}): {text}")


def _call(method: str, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    uri = address()
    answer = _send(uri, method, f"/api/2.0/mlflow/{path}", fields, _ANSWER_S)
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code == HTTPStatus.OK and isinstance(body, dict):
        return body
    if answer.status_code == HTTPStatus.OK:
        raise PermanentError(f"{uri} is no MLflow server: it answers {first_line(RuntimeError(answer.text))[:100]!r}")
    if not isinstance(body, dict):  # of a proxy
        body = {"message": answer.text}
    reason = str(body.get("message", ""))
    code = body.get("error_code")
    if code == "RESOURCE_DOES_NOT_EXIST" or (code == "INVALID_PARAMETER_VALUE" and path == _ALIAS):
        raise MissingError(f"MLflow at {uri}: {reason[:300]}")
    raise translate_error(RuntimeError(reason), answer.status_code, uri)


def _send(uri: str, method: str, path: str, fields: Mapping[str, Any], timeout_s: float) -> Response:
    """Sends a request, again after a failure of the server; returns its last answer."""
    params, body = (fields, None) if method == "GET" else (None, fields)
    if not _logs_in_by_password():
        return _send_by_mlflow(uri, method, path, {"params": params, "json": body}, timeout_s)
    import requests

    login = (os.environ[_USER], os.environ[_PASSWORD]) if os.environ.get(_USER) else None
    timeouts = (_CONNECT_S, timeout_s)
    try:
        return _session(os.getpid()).request(method, uri + path, params=params, json=body, auth=login, timeout=timeouts)
    except requests.ReadTimeout as error:
        raise TransientError(
            f"MLflow at {uri} did not answer within {timeout_s:g} s: it is busy or hangs; "
            "`effnet down` and `effnet up` restart the embedded one"
        ) from error
    except requests.RequestException as error:
        raise _no_answer(uri) from error


@cache
def _session(_process: int) -> Session:
    """The session of this process, whose connections all requests share; a forked process opens others.

    A server that cannot be reached is not tried again: its user should start it.
    """
    import requests
    from requests.adapters import HTTPAdapter

    again = _create_retry()(
        _RETRIES,
        connect=0,
        read=1,
        backoff_factor=1,
        status_forcelist=_RETRIED,
        allowed_methods=None,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    return session


def _create_retry() -> type[Retry]:
    """Retries that exclude a request without an answer in time: the server may still do it, and its user waits."""
    from urllib3 import Retry
    from urllib3.exceptions import ReadTimeoutError

    class RetryUnlessSlow(Retry):
        def increment(
            self,
            method: str | None = None,
            url: str | None = None,
            response: BaseHTTPResponse | None = None,
            error: Exception | None = None,
            _pool: ConnectionPool | None = None,
            _stacktrace: TracebackType | None = None,
        ) -> Self:
            if isinstance(error, ReadTimeoutError):
                raise error
            return super().increment(method, url, response, error, _pool, _stacktrace)

    return RetryUnlessSlow


def _logs_in_by_password() -> bool:
    """Whether nothing but user and password, or nothing at all, says how to log in to MLflow."""
    others = {name for name, value in os.environ.items() if name.startswith("MLFLOW_TRACKING_") and value} - _KNOWN
    both = bool(os.environ.get(_USER) and os.environ.get(_PASSWORD))
    return not others and (both or not Path(expand_home("~/.mlflow/credentials")).exists())


def _send_by_mlflow(uri: str, method: str, path: str, fields: Mapping[str, Any], timeout_s: float) -> Response:
    from infra.tracking.client import library

    mlflow = library()
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer: Response = http_request(
            get_default_host_creds(uri), path, method, _RETRIES, timeout=timeout_s, raise_on_status=False, **fields
        )
    except mlflow.MlflowException as error:
        raise _no_answer(uri) from error
    return answer


def _no_answer(uri: str) -> TransientError:
    return TransientError(f"MLflow at {uri} does not answer: start it with `effnet up` or set services.mlflow")
