"""Opens the pages of the embedded Prefect and MLflow in a browser, already logged in.

Every user of the machine can read the command line of a browser. It therefore receives the address of a file that
only its owner can read; the file redirects to the service, with the password.
"""

from __future__ import annotations

import base64
import json
import webbrowser
from pathlib import Path
from urllib.parse import quote

from infra.services import http, keys
from infra.services.programs import TITLES

PAGES = ("prefect", "mlflow")
_PROTECTED = {"prefect": "/api/admin/version", "mlflow": "/api/2.0/mlflow/experiments/get-by-name"}
# Prefect's pages, both versions, take the password from the browser's storage, which only a page of the same origin
# can fill. It arrives in the fragment, which no browser sends to a server and which `replace` keeps out of the history.
_PREFECT_LOGIN = """\
<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<title>effnet: log in to Prefect</title>
<script>
  if (location.hash.length > 1) localStorage.setItem("prefect-password", location.hash.slice(1));
  location.replace("/");
</script>
"""
_PREFECT_LOGIN_NAME = "effnet-login.html"
_MLFLOW_ENTRY = "/effnet-login"  # answered by mlflow_login.py, which loads Flask
_FORWARD = """\
<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<title>effnet: log in</title>
<script>location.replace({link});</script>
"""


def show(address: str) -> str:
    """Opens the pages of an external service; returns the message to print."""
    return f"opened {address}" if _open(address) else f"no browser here; open {address}"


def show_logged_in(folder: Path, base: str, name: str) -> str:
    """Opens the pages of an embedded service, logged in; returns the message to print.

    Args:
        folder: The services folder.
        base: Address of the service.
        name: Name of the service, from ``PAGES``.
    """
    if asks_for_password(base, name) is False:
        return show(base)
    page = forwarding_page(folder, base, name)
    if _open(page.as_uri()):
        return f"opened {base} in your browser, logged in; if nothing shows, open {page.as_uri()}"
    return f"no browser here; open this link, which holds your password:\n{link(folder, base, name)}"


def link(folder: Path, base: str, name: str) -> str:
    """Returns the address that logs a browser in; it holds the password, so it must not be on a command line."""
    password = keys.credentials(folder)[f"{name}_password"]
    if name == "mlflow":
        return base.replace("://", f"://{keys.USER}:{quote(password, safe='')}@") + _MLFLOW_ENTRY
    _write(folder / "prefect" / "ui" / "v1" / _PREFECT_LOGIN_NAME, _PREFECT_LOGIN)
    secret = base64.b64encode(f"{keys.USER}:{password}".encode()).decode()
    return f"{base}/{_PREFECT_LOGIN_NAME}#{secret}"


def forwarding_page(folder: Path, base: str, name: str) -> Path:
    """Writes a page that redirects to ``link``; returns its path."""
    page = folder / f"open-{name}.html"
    _write(page, _FORWARD.format(link=json.dumps(link(folder, base, name)).replace("<", "\\u003c")))
    return page


def asks_for_password(base: str, name: str) -> bool | None:
    """Whether the service refuses a caller without a password; None if it does not answer."""
    status, _ = http.call("GET", base + _PROTECTED[name])
    return status == 401 if status else None


def refuses_password(folder: Path, base: str, name: str) -> bool:
    """Whether the server at ``base`` does not know the password of these services, because it is not one of them."""
    secret = base64.b64encode(f"{keys.USER}:{keys.credentials(folder)[f'{name}_password']}".encode()).decode()
    return http.call("GET", base + _PROTECTED[name], headers={"Authorization": f"Basic {secret}"})[0] == 401


def warning(base: str, name: str, auth: bool) -> str | None:
    """Returns a warning if a running service accepts every user of the machine or contradicts ``services.auth``."""
    title, asks = TITLES[name], asks_for_password(base, name)
    if asks is None:
        return None  # does not answer, which is reported elsewhere
    if asks and not auth:
        return f"{title} was started with a password and keeps it; `effnet down` first, then services.auth=false"
    if auth and not asks:
        return f"{title} was started without a password: every local user can run code as you; `effnet down` first"
    if not asks:
        return f"{title} asks for no password (services.auth=false): every local user can run code as you"
    return None


def _open(address: str) -> bool:
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys.write_private(path, text.encode())
