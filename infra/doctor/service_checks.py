"""Checks of the services: ours by their status, somebody else's by asking them."""

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
    """The embedded services; one that rests is fine, because every flow starts what it needs."""
    lines = stack.status(run_dir, services)
    findings = [Finding(OK, "services", f"{name} {line}") for name, line in lines.items() if line.startswith("running")]
    resting = [name for name, line in lines.items() if line == "not running"]
    if resting:
        findings.append(Finding(WARN, "services", f"not running: {', '.join(resting)}; run `effnet up`"))
    for name, line in lines.items():
        if "does not answer" in line:
            findings.append(Finding(FAIL, "services", f"{name} {line}; run `effnet down` and `effnet up`"))
    open_mark = FAIL if services.auth else WARN
    findings += [Finding(open_mark, "services", line) for line in stack.login_warnings(run_dir, services)]
    return findings


def health(name: str, url: str) -> list[Finding]:
    """A Prefect API or an MLflow server that somebody else runs."""
    if not url.startswith("http"):
        return []
    code, _ = call("GET", f"{url.rstrip('/')}/health")
    if code == 200:
        return [Finding(OK, name, f"answers at {url}")]
    if code in (401, 403):
        return [Finding(WARN, name, f"{url} asks for credentials ({code}); README, Services, names the variables")]
    said = f"answers {code}" if code else "does not answer"
    return [Finding(FAIL, name, f"{url}/health {said}; start it or correct services.{name}")]


def storage(root: str, *, ours: bool) -> list[Finding]:
    """Writes, reads back and deletes one small object where everything will go.

    Args:
        root: the configured storage; ``os.environ`` leads to it.
        ours: the embedded object store, which must then refuse a request without keys.
    """
    uri = store.join(root, f".doctor-{token_hex(8)}")
    token = token_bytes(32)
    began = time.monotonic()
    try:
        store.write(uri, token)
        try:
            same, refused = store.read(uri) == token, not ours or _refuses_strangers(uri)
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


def _refuses_strangers(uri: str) -> bool:
    return call("GET", f"{s3_errors.endpoint()}/{uri.removeprefix('s3://')}")[0] == 403


def clock() -> list[Finding]:
    """Our clock against the object store's: S3 refuses signatures that are 15 minutes off."""
    there = _date_at(s3_errors.endpoint() or "https://s3.amazonaws.com")
    if there is None:
        return [Finding(OK, "clock", "the object store tells no time")]
    apart = abs(time.time() - there)
    if apart > 5:
        text = f"{apart:.0f} s apart from the object store's; synchronise this machine's (NTP)"
        return [Finding(FAIL if apart > 60 else WARN, "clock", text)]
    return [Finding(OK, "clock", f"within {max(1, round(apart))} s of the object store's")]


def _date_at(url: str) -> float | None:
    """The ``Date`` of a server's answer in seconds since 1970; whole seconds, as HTTP has it."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=3)
    try:
        connection.request("HEAD", "/")
        date = connection.getresponse().getheader("Date")
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
