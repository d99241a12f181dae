"""A store that refuses: when this machine's clock is what is wrong, the message says so and not the keys."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from matrix import with_slow_rest
from serving import serving

from infra import store
from infra.errors import ConfigError


class Refusing(BaseHTTPRequestHandler):
    """Answers every request as a store whose clock is ``ahead_s`` ahead: 403, and no body to a HEAD."""

    ahead_s: float | None = 0.0

    def do_HEAD(self) -> None:
        self.send_response_only(403)
        if self.ahead_s is not None:
            self.send_header("Date", formatdate(time.time() + self.ahead_s, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - http.server's names
    do_PUT = do_HEAD  # noqa: N815

    def do_POST(self) -> None:
        """Answers a deletion of several objects as S3 does: 200, and in the body what was refused."""
        self.rfile.read(int(self.headers["Content-Length"]))
        refused = "<Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        body = f"<DeleteResult>{refused}</DeleteResult>".encode()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Refusing)) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        for key, value in {"ENDPOINT_URL_S3": address, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
            monkeypatch.setenv(f"AWS_{key}", value)
        yield address


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    with_slow_rest([(3600.0, "60 minutes behind"), (-3600.0, "60 minutes ahead of"), (-400.0, "7 minutes ahead of")]),
)
def test_a_clock_that_is_off_is_named_instead_of_the_keys(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, ahead_s: float, said: str
) -> None:
    monkeypatch.setattr(Refusing, "ahead_s", ahead_s)
    for call in (store.exists, store.read, lambda uri: store.write(uri, b"x")):
        with pytest.raises(ConfigError) as caught:
            call("s3://bucket/key")
        message = str(caught.value)
        assert f"this machine's clock is {said} the clock of {endpoint}" in message
        assert "set the clock" in message
        assert "AWS_ACCESS_KEY_ID" not in message


@pytest.mark.parametrize("ahead_s", with_slow_rest([0.0, 60.0, -60.0, None], plain=2))
def test_with_a_clock_that_is_right_the_keys_are_named(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, ahead_s: float | None
) -> None:
    monkeypatch.setattr(Refusing, "ahead_s", ahead_s)
    with pytest.raises(ConfigError, match=r"refuses the credentials that boto3 found .*; check AWS_ACCESS_KEY_ID"):
        store.exists("s3://bucket/key")


def test_a_refused_deletion_is_no_error_that_passes(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="refuses the credentials that boto3 found \\(AccessDenied\\)"):
        store.delete_objects(["s3://bucket/a", "s3://bucket/b"])


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "AWS_DEFAULT_REGION",
            "no such",
            r"^'no such' is no name of a region, as us-east-1: correct AWS_DEFAULT_REGION",
        ),
        ("AWS_ENDPOINT_URL_S3", "nonsense", r"^'nonsense' is not a valid address of an object store"),
    ],
)
def test_a_region_and_an_address_that_no_client_takes_are_named(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        store.exists("s3://bucket/key")
