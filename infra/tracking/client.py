"""Connects to MLflow: a client with short timeouts, without log noise or pickle, that raises ``EffnetError``.

Used by ``runs.py`` (runs) and ``registry.py`` (models). The address is ``MLFLOW_TRACKING_URI``,
credentials are MLflow's own variables. Importing this file does not import MLflow, which takes two seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infra.errors import ConfigError, EffnetError, PermanentError, TransientError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_TIMEOUT_S = 5
_CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"

# MLflow reads these at import or at every request. The timeout is long because uploads share it (the server
# answers only when the object store has the file); a quick probe first checks that the server is alive.
_QUIET = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


@contextmanager
def connection() -> Iterator[MlflowClient]:
    """Yields a client of a live MLflow server and translates MLflow's errors into ``EffnetError``.

    Raises:
        TransientError: The server does not answer within seconds, or fails.
        ConfigError: The server refuses the credentials, or no address is set.
        PermanentError: The server refuses the request.
    """
    uri = address()
    mlflow = library()
    import requests

    try:
        if uri.startswith("http"):
            _probe(uri)
        yield mlflow.MlflowClient(tracking_uri=uri)
    except mlflow.MlflowException as error:
        raise _translate_error(error, error.get_http_status_code(), uri) from error
    except requests.RequestException as error:  # file transfers bypass MLflow's error wrapper
        answer = error.response
        raise _translate_error(error, 503 if answer is None else answer.status_code, uri) from error


def address() -> str:
    """Returns the tracking URI without a trailing slash.

    Raises:
        ConfigError: The URI is not set, or contains a password, which would appear in every log line.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not uri:
        raise ConfigError("MLFLOW_TRACKING_URI is not set: start MLflow with `effnet up` or set services.mlflow")
    if "@" in urlsplit(uri).netloc:
        raise ConfigError(f"MLFLOW_TRACKING_URI must hold no user and password: {_CREDENTIALS}")
    return uri


def library() -> Any:
    """Returns MLflow, imported at the first call, without log noise or pickle."""
    # At every call: a command that connects to the embedded services removes the variables of MLflow from its
    # environment (infra/environment.py), and with MLflow's own retries an unreachable server takes four minutes.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"  # a registered model may contain arbitrary code
    import mlflow

    return mlflow


def _probe(uri: str) -> None:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    mlflow = library()
    try:
        http_request(get_default_host_creds(uri), "/health", "GET", timeout=PROBE_TIMEOUT_S, max_retries=0)
    except mlflow.MlflowException as error:
        message = f"MLflow at {uri} does not answer: start it with `effnet up` or set services.mlflow"
        raise TransientError(message) from error


def _translate_error(error: Exception, status: int, uri: str) -> EffnetError:
    reason = first_line(error)[:300]
    if status in (401, 403):
        return ConfigError(f"MLflow at {uri} refuses access ({status}): {_CREDENTIALS} ({reason})")
    if status >= 500 or status in (408, 429):
        return TransientError(f"MLflow at {uri} fails ({status}): {reason}")
    return PermanentError(f"MLflow at {uri} refuses the request ({status}): {reason}")
