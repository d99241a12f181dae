"""Authenticates every request to the embedded MLflow; loaded only by its server (``authorization_function``).

MLflow's own check derives the password hash again for each request, keeps the first password forever, and
lets pages of any port of this machine use the password that the browser stores.
"""

from __future__ import annotations

import hmac
import json
import os

from flask import Response, request
from werkzeug.datastructures import Authorization

ENTRY = "/effnet-login"
# The pages of model training are shown, in place of those of MLflow's GenAI part, the assistant stays closed, and no
# announcement covers the list of models; what the user has chosen since then stays. Nor is there a notice of telemetry,
# which the server has switched off. Pages whose address contains a password cannot fetch anything, so the address is
# left, for that of the experiments; the browser remembers the password for this host.
_WELCOME = """<!doctype html><title>MLflow</title><script>
for (const [key, value] of Object.entries({
  "mlflow.workflowType_v1": '"machine_learning"',
  "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
  "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
  "mlflow.telemetry.info.alert.dismissed_v1": "true",
})) if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
location.replace(location.origin + "/#/experiments");
</script>
"""


def authenticate() -> Authorization | Response:
    """Returns the user of the current request, or the response that refuses it."""
    login = request.authorization
    if login is None or not _is_right(login.username, login.password):
        return Response("no or wrong password", 401, {"WWW-Authenticate": 'Basic realm="mlflow"'})
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        return _refusal(403, f"pages of {origin} may not use this server")
    if request.method == "POST" and request.path.endswith("/mlflow/experiments/create"):
        body = request.get_json(force=True, silent=True)
        location = body.get("artifact_location") if isinstance(body, dict) else None
        if location and (not str(location).startswith("mlflow-artifacts:/") or ".." in str(location)):
            return _refusal(400, "artifact_location must be in this server's store; omit it")
    if request.path == ENTRY:
        return Response(_WELCOME, mimetype="text/html")
    return login


def _is_right(user: str | None, password: str | None) -> bool:
    right = os.environ["MLFLOW_AUTH_ADMIN_USERNAME"], os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
    return hmac.compare_digest(f"{user}:{password}".encode(), ":".join(right).encode())


def _refusal(status: int, message: str) -> Response:
    code = "INVALID_PARAMETER_VALUE" if status == 400 else "PERMISSION_DENIED"
    return Response(json.dumps({"error_code": code, "message": message}), status, mimetype="application/json")
