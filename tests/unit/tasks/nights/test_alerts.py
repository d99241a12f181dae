"""Alerts against a local web server and a local SMTP server."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from serving import serving

from conf.schema import Alerts, Email
from infra.services import keys
from tasks.nights import alerts

TEXT = "effnet nightly b0 on pets: failed"


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted; answers with ``server.status``."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["Content-Type"], body))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


class Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs that logs in, or does not."""

    def handle(self) -> None:
        lines: list[str] = []
        self.wfile.write(b"220 sink\r\n")
        while line := self.rfile.readline():
            command = line.decode().strip()
            lines.append(command)
            if command.upper() == "DATA":
                self.wfile.write(b"354 go\r\n")
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line.decode().rstrip("\r\n"))
            replies = {"EHLO": b"250-sink\r\n250 AUTH PLAIN\r\n", "AUTH": b"235 ok\r\n", "QUIT": b"221 bye\r\n"}
            self.wfile.write(replies.get(command.partition(" ")[0].upper(), b"250 ok\r\n"))
            if command == "QUIT":
                break
        self.server.received.append(lines)  # type: ignore[attr-defined]


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[list[object]]:
    received: list[object] = []
    server.received = received  # type: ignore[attr-defined]
    with serving(server):
        yield received


@pytest.fixture
def web() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Hook)
    server.status = 200  # type: ignore[attr-defined]
    with running(server):
        yield server


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_webhook_receives_the_json_of_slack(
    by_variable: bool, web: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{web.server_port}/services/T0/B0?x=1"
    monkeypatch.setenv("NIGHT_HOOK", url)
    alerts.send(Alerts(webhook="NIGHT_HOOK" if by_variable else url), f"{TEXT}\x1b[31m")
    ((path, kind, body),) = web.received  # type: ignore[attr-defined]
    assert (path, kind) == ("/services/T0/B0?x=1", "application/json")
    assert json.loads(body) == {"text": f"{TEXT}\\x1b[31m"}


def test_an_e_mail_goes_to_every_recipient_with_the_text_as_subject(web: HTTPServer) -> None:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
    with running(server) as received:
        host = f"127.0.0.1:{server.server_address[1]}"
        email = Email(host=host, sender="effnet@example.org", to=["a@example.org", "b@example.org"])
        alerts.send(Alerts(email=email), f"{TEXT}\n  | last line of a log")
    (lines,) = received
    assert isinstance(lines, list)
    assert [line for line in lines if line.lower().startswith("rcpt")] == [
        "rcpt TO:<a@example.org>",
        "rcpt TO:<b@example.org>",
    ]
    (subject,) = (line for line in lines if line.startswith("Subject: "))
    assert subject.startswith(f"Subject: {TEXT}")
    assert "  | last line of a log" in lines


def test_on_the_port_for_it_an_e_mail_is_sent_by_tls_from_the_start_and_the_server_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = keys.certificate(tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    theirs = ssl.create_default_context(cafile=str(certificate))
    theirs.check_hostname = False  # the certificate is for no host
    monkeypatch.setenv(alerts.SMTP_USER, "effnet")
    monkeypatch.setenv(alerts.SMTP_PASSWORD, "secret")
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
    server.socket = ours.wrap_socket(server.socket, server_side=True)
    monkeypatch.setattr(alerts, "TLS_PORT", server.server_address[1])
    receivers = Alerts(email=Email(f"127.0.0.1:{server.server_address[1]}", "a@example.org", ["b@example.org"]))
    with running(server) as received:
        alerts.send(receivers, TEXT)
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
        monkeypatch.setattr(ssl, "create_default_context", lambda: theirs)
        alerts.send(receivers, TEXT)
    lines = received[-1]
    assert isinstance(lines, list)
    assert [line.partition(" ")[0].upper() for line in lines[:3]] == ["EHLO", "AUTH", "MAIL"]
    assert f"Subject: {TEXT}" in lines


def test_trying_the_receivers_names_those_that_do_not_take_an_alert(web: HTTPServer) -> None:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
    with running(server) as received:
        email = Email(f"127.0.0.1:{server.server_address[1]}", "a@example.org", ["b@example.org"])
        both = Alerts(webhook="NOT_SET_ANYWHERE", email=email)
        faults = alerts.try_receivers(both, TEXT)
    assert len(received) == 1
    unset = "the variable NOT_SET_ANYWHERE does not hold a URL"
    assert faults == {"nightly.alerts.webhook": unset, "nightly.alerts.email": ""}
    assert alerts.try_receivers(Alerts(), TEXT) == {}


@pytest.mark.parametrize("fault", ["closed", "refuses", "no variable", "no SMTP server"])
def test_a_broken_receiver_is_a_warning_with_the_alert_and_fails_nothing(
    fault: str, web: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    web.status = 500  # type: ignore[attr-defined]
    chosen = {
        "closed": Alerts(webhook=f"http://127.0.0.1:{closed}/secret"),
        "refuses": Alerts(webhook=f"http://127.0.0.1:{web.server_port}/secret"),
        "no variable": Alerts(webhook="NOT_SET_ANYWHERE"),
        "no SMTP server": Alerts(email=Email(f"127.0.0.1:{closed}", "a@example.org", ["b@example.org"])),
    }[fault]
    with caplog.at_level("WARNING", "effnet"):
        assert not alerts.send(chosen, TEXT)
    (record,) = caplog.records
    assert "the alert was not sent: " in record.getMessage()
    assert record.getMessage().endswith(f"; it was: {TEXT}")
    assert "secret" not in record.getMessage()


def test_a_broken_webhook_does_not_stop_the_e_mail(caplog: pytest.LogCaptureFixture) -> None:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
    with running(server) as received, caplog.at_level("WARNING", "effnet"):
        email = Email(f"127.0.0.1:{server.server_address[1]}", "a@example.org", ["b@example.org"])
        assert alerts.send(Alerts(webhook="NOT_SET_ANYWHERE", email=email), TEXT)
    assert len(received) == len(caplog.records) == 1


@pytest.mark.parametrize(
    ("event", "path"), [("/start", "/ping/key/start?a=1"), ("", "/ping/key?a=1"), ("/fail", "/ping/key/fail?a=1")]
)
def test_a_heartbeat_calls_its_url_with_the_event_at_the_end_of_the_path(
    event: str, path: str, web: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHT_PING", f"http://127.0.0.1:{web.server_port}/ping/key?a=1")
    alerts.beat(Alerts(heartbeat="NIGHT_PING"), event, "promoted")
    ((called, _, body),) = web.received  # type: ignore[attr-defined]
    assert (called, json.loads(body)) == (path, "promoted")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/secret", "NOT_SET_ANYWHERE"])
def test_a_broken_heartbeat_is_a_warning_and_none_is_silent(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "effnet"):
        alerts.beat(Alerts(), "/start")
        alerts.beat(Alerts(heartbeat=url), "/start")
    (record,) = caplog.records
    assert record.getMessage().startswith("nightly.alerts.heartbeat: the call was not made: ")
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Alerts(webhook="ftp://host/x"), "must be an http"),
        (lambda: Alerts(heartbeat="host/ping"), "nightly.alerts.heartbeat must be an http"),
        (lambda: Alerts(late_minutes=0), "late_minutes must be > 0"),
        (lambda: Email(host="mail.example.org"), "host needs nightly.alerts.email.sender and"),
        (lambda: Email("mail.example.org", "effnet", ["a@example.org"]), "'effnet' is not an e-mail address"),
        (lambda: Email("mail host", "e@example.org", ["a@example.org"]), "must be HOST or HOST:PORT, is 'mail host'"),
    ],
)
def test_a_receiver_that_cannot_be_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
