"""Plain calls to the embedded Prefect and MLflow with the passwords that stand in ``os.environ``."""

from __future__ import annotations

import base64
import os
import time
from typing import Any

from infra.services import http, prefect_api


def prefect(method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and answer of a path of Prefect's API; asked again while its SQLite is busy (503)."""
    api, deadline = prefect_api.from_environment(os.environ), time.monotonic() + 60
    while True:
        status, answer = prefect_api.call(api, method, path, body, timeout_s=30)
        if status != 503 or time.monotonic() > deadline:
            return status, answer
        time.sleep(0.5)


def mlflow(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and answer of a path of MLflow."""
    login = f"{os.environ['MLFLOW_TRACKING_USERNAME']}:{os.environ['MLFLOW_TRACKING_PASSWORD']}"
    headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return http.call(method, os.environ["MLFLOW_TRACKING_URI"] + path, body, timeout_s=30, headers=headers)
