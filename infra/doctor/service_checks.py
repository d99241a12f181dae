"""Checks the services: embedded ones by their status, external ones by a request."""

from __future__ import annotations

import http.client
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from secrets import token_bytes, token_hex
from urllib.parse import urlsplit

from conf.schema import Services
from infra import store
from infra.doctor.finding import FAIL, OK, WARN, Finding
from infra.errors import EffnetError
from infra.services import stack
from infra.services.http import call
from infra.store import s3_errors


def status(run_dir: Path, services: Services) -> list[Finding]:
    """Checks the embedded services; a stopped one is only a warning, because every flow starts what it needs."""
    lines = stack.status(run_dir, services)
    findings = [Finding(OK, "services", f"{name} {line}") for name, line in lines.items() if line.startswith("running")]
    stopped = [name for name, line in lines.items() if line == "not running"]
    if stopped:
        findings.append(Finding(WARN, "services", f"not running: {', '.join(stopped)}; run `effnet up`"))
    for name, line in lines.items():
        if "does not answer" in line:
            findings.append(Finding(FAIL, "services", f"{name} {line}; run `effnet down` and `effnet up`"))
    open_mark = FAIL if services.auth else WARN
    findings += [Finding(open_mark, "services", line) for line in stack.login_warnings(run_dir, services)]
    return findings


def health(name: str, url: str) -> list[Finding]:
    """Checks an external Prefect API or MLflow server."""
    if not url.startswith("http"):
        return []
    code, _ = call("GET", f"{url.rstrip('/')}/health")
    if code == 200:
        return [Finding(OK, name, f"answers at {url}")]
    if code in (401, 403):
        return [Finding(WARN, name, f"{url} asks for credentials ({code}); docs/deployment.md, names the variables")]
    problem = f"answers {code}" if code else "does not answer"
    return [Finding(FAIL, name, f"{url}/health {problem}; start it or correct services.{name}")]


def storage(root: str, *, ours: bool) -> list[Finding]:
    """Writes, reads back and deletes one small object in the configured storage.

    Args:
        root: The configured storage; ``os.environ`` holds its endpoint and credentials.
        ours: Whether it is the embedded object store, which must refuse requests without keys.
    """
    uri = store.join(root, f".doctor-{token_hex(8)}")
    token = token_bytes(32)
    began = time.monotonic()
    try:
        store.write(uri, token)
        try:
            same, refused = store.read(uri) == token, not ours or _refuses_anonymous(uri)
        finally:
            store.delete(uri)
    except EffnetError as error:
        if "there is no bucket" in str(error):
            return [Finding(WARN, "storage", f"{error}; the first run makes it, where it may")]
        return [Finding(FAIL, "storage", str(error))]
    took_ms = 1000 * (time.monotonic() - began)
    if not same:
        return [Finding(FAIL, "storage", f"{root} gives back other bytes than were written; take another storage=URI")]
    if not refused:
        return [Finding(FAIL, "storage", f"{root} serves strangers without keys; run `effnet down` and report this")]
    return [Finding(OK, "storage", f"{root}: written, read and deleted in {took_ms:.0f} ms")]


def _refuses_anonymous(uri: str) -> bool:
    return call("GET", f"{s3_errors.endpoint()}/{uri.removeprefix('s3://')}")[0] == 403


def clock() -> list[Finding]:
    """Compares this machine's clock with the object store's: S3 refuses signatures that are 15 minutes off."""
    store_time = _read_date(s3_errors.endpoint() or "https://s3.amazonaws.com")
    if store_time is None:
        return [Finding(OK, "clock", "the object store sends no Date header")]
    difference_s = abs(time.time() - store_time)
    if difference_s > 5:
        text = f"{difference_s:.0f} s apart from the object store's; synchronize this machine's (NTP)"
        return [Finding(FAIL if difference_s > 60 else WARN, "clock", text)]
    return [Finding(OK, "clock", f"within {max(1, round(difference_s))} s of the object store's")]


def _read_date(url: str) -> float | None:
    """Returns the ``Date`` header of a server's answer as unix time, in whole seconds; None without an answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.netloc, timeout=3)
    except http.client.InvalidURL:  # no number as port
        return None
    try:
        connection.request("HEAD", "/")
        date = connection.getresponse().getheader("Date")
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
