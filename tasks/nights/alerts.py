"""Alerts about nights by webhook and e-mail, and their heartbeat. What cannot be sent is logged and fails nothing."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
from email.message import EmailMessage
from functools import partial
from urllib.parse import urlsplit

from conf import schema
from conf.text import escaped, first_line, logger, printable
from infra.errors import ConfigError, TransientError
from infra.services import http

log = logger()
TIMEOUT_S = 10.0
SMTP_USER, SMTP_PASSWORD = "EFFNET_SMTP_USER", "EFFNET_SMTP_PASSWORD"


def send(alerts: schema.Alerts, text: str) -> bool:
    """Sends one line to every configured receiver; logs those that cannot be reached.

    Args:
        alerts: Receivers.
        text: The alert; control characters are escaped.

    Returns:
        Whether a receiver has it; also True if none is configured.
    """
    line = printable(text)
    sent = failed = 0
    for name, receiver, deliver in (
        ("nightly.alerts.webhook", alerts.webhook, partial(_post, alerts.webhook or "", "", {"text": line})),
        ("nightly.alerts.email", alerts.email.host, partial(_mail, alerts.email, line)),
    ):
        if receiver is None:
            continue
        try:
            deliver()
            sent += 1
        except Exception as error:  # noqa: BLE001 - a broken receiver must not fail a night
            failed += 1
            log.warning("%s: the alert was not sent: %s; it was: %s", name, first_line(error), line)
    return sent > 0 or not failed


def beat(alerts: schema.Alerts, event: str, text: str = "") -> None:
    """Calls the heartbeat URL, if there is one; logs a service that cannot be reached.

    Args:
        alerts: Receivers.
        event: ``/start``, ``/fail``, or empty at a night's good end; it is appended to the path of the URL.
        text: Result of the night, for the service's log.
    """
    if alerts.heartbeat is None:
        return
    try:
        _post(alerts.heartbeat, event, printable(text))
    except Exception as error:  # noqa: BLE001 - a broken receiver must not fail a night
        log.warning("nightly.alerts.heartbeat: the call was not made: %s", first_line(error))


def title(config: schema.Config, text: str) -> str:
    """The line of an alert: which night on which machine, and what about it."""
    return f"effnet nightly {config.nightly.model} on {config.transfer.data.name} ({socket.gethostname()}): {text}"


def _post(receiver: str, suffix: str, body: object) -> None:
    """Posts JSON to a URL, or to that in a variable; messages name the variable, not the URL that it holds."""
    url = receiver if "://" in receiver else os.environ.get(receiver, "")
    if "://" not in url:
        raise ConfigError(f"the variable {receiver} does not hold a URL")
    parts = urlsplit(url)
    url = parts._replace(path=parts.path.rstrip("/") + suffix if suffix else parts.path).geturl()
    status, _ = http.call("POST", url, body, TIMEOUT_S)
    if not 200 <= status < 300:
        raise TransientError(f"it answers {status}" if status else "it does not answer")


def _mail(email: schema.Email, line: str) -> None:
    message = EmailMessage()
    message["Subject"] = escaped(line)[:120]
    message["From"], message["To"] = email.sender, ", ".join(email.to)
    message.set_content(line)
    host, _, port = (email.host or "").partition(":")
    with smtplib.SMTP(host, int(port or 25), timeout=TIMEOUT_S) as server:
        if os.environ.get(SMTP_USER):
            server.starttls(context=ssl.create_default_context())
            server.login(os.environ[SMTP_USER], os.environ.get(SMTP_PASSWORD, ""))
        server.send_message(message)
