"""Alerts about nights, by webhook and by e-mail. An alert that cannot be sent is logged and fails nothing."""

from __future__ import annotations

import os
import smtplib
import ssl
from email.message import EmailMessage
from functools import partial

from conf import schema
from conf.text import escaped, first_line, logger, printable
from infra.errors import ConfigError, TransientError
from infra.services import http

log = logger()
TIMEOUT_S = 10.0
SMTP_USER, SMTP_PASSWORD = "EFFNET_SMTP_USER", "EFFNET_SMTP_PASSWORD"


def send(alerts: schema.Alerts, text: str) -> None:
    """Sends one line to every configured receiver; logs those that cannot be reached.

    Args:
        alerts: Receivers.
        text: The alert; control characters are escaped.
    """
    line = printable(text)
    for name, receiver, deliver in (
        ("nightly.alerts.webhook", alerts.webhook, partial(_post, alerts.webhook or "", line)),
        ("nightly.alerts.email", alerts.email.host, partial(_mail, alerts.email, line)),
    ):
        if receiver is None:
            continue
        try:
            deliver()
        except Exception as error:  # noqa: BLE001 - a broken receiver must not fail a night
            log.warning("%s: the alert was not sent: %s; it was: %s", name, first_line(error), line)


def _post(webhook: str, line: str) -> None:
    """Posts Slack's JSON; messages name the variable, not the URL that it holds."""
    url = webhook if "://" in webhook else os.environ.get(webhook, "")
    if "://" not in url:
        raise ConfigError(f"the variable {webhook} does not hold a URL")
    status, _ = http.call("POST", url, {"text": line}, TIMEOUT_S)
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
