"""Connects to MLflow: a client with short timeouts, without log noise or pickle, that raises ``EffnetError``.

Used by what writes runs and models; ``registry.py`` and ``queries.py`` use the REST API (``rest.py``), which needs no
import of MLflow. Importing this file does not import it either. The address is ``MLFLOW_TRACKING_URI``, credentials are
MLflow's own variables.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infra.tracking import rest

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
    uri = rest.address()
    mlflow = library()
    import requests

    try:
        rest.probe(uri)
        yield mlflow.MlflowClient(tracking_uri=uri)
    except mlflow.MlflowException as error:
        raise rest.translate_error(error, error.get_http_status_code(), uri) from error
    except requests.RequestException as error:  # file transfers bypass MLflow's error wrapper
        answer = error.response
        raise rest.translate_error(error, 503 if answer is None else answer.status_code, uri) from error


def library() -> Any:
    """Returns MLflow, imported at the first call, without log noise or pickle."""
    # At every call: a command that connects to the embedded services removes the variables of MLflow from its
    # environment (infra/environment.py), and with MLflow's own retries an unreachable server takes four minutes.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"  # a registered model may contain arbitrary code
    with warnings.catch_warnings():
        # With PYTHONOPTIMIZE=2 MLflow has no docstrings to complete, and warns once for every kind of address.
        warnings.filterwarnings("ignore", "Failed to register a dataset source", UserWarning)
        import mlflow

    return mlflow
