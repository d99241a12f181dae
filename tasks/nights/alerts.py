"""Alerts about nights by webhook and e-mail, and their heartbeat. What cannot be sent is logged and fails nothing."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from functools import partial
from urllib.parse import urlsplit

from conf import schema
from conf.text import escaped, first_line, logger, printable
from infra.errors import ConfigError, TransientError
from infra.services import http

log = logger()
TIMEOUT_S = 10.0
TLS_PORT = 465  # on which SMTP begins with TLS (RFC 8314); on others STARTTLS begins it
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
    faults = try_receivers(alerts, text)
    for name, fault in faults.items():
        if fault:
            log.warning("%s: the alert was not sent: %s; it was: %s", name, fault, line)
    return not faults or not all(faults.values())


def try_receivers(alerts: schema.Alerts, text: str) -> dict[str, str]:
    """Sends one line to every configured receiver; returns for each why it did not take it, empty if it did."""
    faults = {}
    for name, deliver in _receivers(alerts, printable(text)):
        try:
            deliver()
            faults[name] = ""
        except Exception as error:  # noqa: BLE001 - a broken receiver must not fail a night
            faults[name] = first_line(error)
    return faults


def has_receivers(alerts: schema.Alerts) -> bool:
    """Whether an alert would be sent anywhere."""
    return bool(_receivers(alerts, ""))


def _receivers(alerts: schema.Alerts, line: str) -> list[tuple[str, Callable[[], None]]]:
    """The configured receivers with the function that sends a line to each."""
    receivers: list[tuple[str, Callable[[], None]]] = []
    if alerts.webhook is not None:
        receivers.append(("nightly.alerts.webhook", partial(_post, alerts.webhook, "", {"text": line})))
    if alerts.email.host is not None:
        receivers.append(("nightly.alerts.email", partial(_mail, alerts.email, line)))
    return receivers


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
    user, context = os.environ.get(SMTP_USER), ssl.create_default_context()
    number = int(port or 25)
    server: smtplib.SMTP  # of which SMTP_SSL is one
    if number == TLS_PORT:
        server = smtplib.SMTP_SSL(host, number, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(host, number, timeout=TIMEOUT_S)
    with server:
        if user and number != TLS_PORT:
            server.starttls(context=context)
        if user:
            server.login(user, os.environ.get(SMTP_PASSWORD, ""))
        server.send_message(message)
