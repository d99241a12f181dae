"""A proxy before the real object store that misbehaves on command, as networks and stores do."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SLOW_BYTES_PER_S = 20_000
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>made up</Message></Error>"


class FaultProxy:
    """Listens on 127.0.0.1 and passes requests on to the store, signed anew with the store's own keys.

    So the clients' keys may be anything, and only ``expired_key`` decides whether they are taken.

    Attributes:
        mode: what happens to an answer: none, refuse, reset, 500, 503, slow, stall, cut, short, flip.
        times: after so many faults the mode is none again.
        lose_completions: of so many finished uploads the answer is lost; asked again, it is NoSuchUpload, as Amazon
            documents (SeaweedFS itself answers as the first time).
        expired_key: requests of this access key are answered 403 ExpiredToken.
        written: method and path of each request that was no GET, in order; faults are for GETs.
        requests: how many came; ``faults``: how many were spoilt; ``refused``: how many were expired.
    """

    def __init__(self, upstream: str, access_key: str, secret_key: str) -> None:
        self.upstream = urlsplit(upstream)
        self.signer = S3SigV4Auth(Credentials(access_key, secret_key), "s3", "us-east-1")
        self.mode, self.times, self.expired_key = "none", 10**9, ""
        self.written: list[tuple[str, str]] = []
        self.lose_completions, self.completed = 0, set[str]()
        self.requests = self.faults = self.refused = 0
        self.lock = threading.Lock()
        self.server = _listen(self, 0)
        self.port = int(self.server.server_address[1])

    @property
    def endpoint(self) -> str:
        """What clients are given for the store's address."""
        return f"http://127.0.0.1:{self.port}"

    def fail(self, mode: str, times: int = 10**9) -> None:
        """From now on, until ``recover`` or until ``times`` answers were spoilt."""
        self.mode, self.times = mode, times
        if mode == "refuse":
            self._stop_listening()

    def recover(self) -> None:
        """No faults any more."""
        if self.mode == "refuse":
            self.server = _listen(self, self.port)
        self.mode = "none"

    def fail_for(self, mode: str, seconds: float) -> Callable[[], None]:
        """A fault that ends by itself; call what is returned to wait for its end."""
        self.fail(mode)
        timer = threading.Timer(seconds, self.recover)
        timer.start()
        return timer.join

    def close(self) -> None:
        """Stops listening; stalled connections are let go."""
        self.mode = "none"
        self._stop_listening()

    def take_fault(self) -> str:
        """The mode for one answer."""
        with self.lock:
            self.requests += 1
            mode = self.mode
            if mode != "none":
                self.faults += 1
                self.times -= 1
                if self.times == 0:
                    self.mode = "none"
            return mode

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The store's own answer."""
        url = f"http://{self.upstream.netloc}{path}"
        kept = {key: value for key, value in headers.items() if key.lower() in ("range", "if-none-match")}
        request = AWSRequest(method, url, headers=kept, data=body)
        self.signer.add_auth(request)
        upstream = http.client.HTTPConnection(self.upstream.netloc, timeout=30)
        try:
            upstream.request(method, path, body, headers=dict(request.headers))
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def _stop_listening(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def through(monkeypatch: Any) -> FaultProxy:
    """A proxy to the store that ``os.environ`` leads to; from now on it leads to the proxy."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    proxy = FaultProxy(*(os.environ[name] for name in names))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    return proxy


def _listen(proxy: FaultProxy, port: int) -> ThreadingHTTPServer:
    class Handler(_Handler):
        owner = proxy

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.block_on_close = False  # stalled ones
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    owner: FaultProxy
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests count instead."""

    def do_GET(self) -> None:
        """One request: spoilt or passed on."""
        proxy, mode = self.owner, self.owner.take_fault()
        expired = proxy.expired_key and f"Credential={proxy.expired_key}/" in self.headers.get("Authorization", "")
        try:
            if expired:
                with proxy.lock:
                    proxy.refused += 1
                self._answer(403, [], _ERROR.format("ExpiredToken").encode())
            elif mode in ("500", "503"):
                self._answer(int(mode), [], _ERROR.format("InternalError" if mode == "500" else "SlowDown").encode())
            elif mode in ("reset", "refuse"):  # refuse: a connection that was open before
                self._reset()
            else:
                self._spoil(mode, *proxy.ask("GET", self.path, dict(self.headers)))
        except OSError:  # the client went away, or the store is gone
            self.close_connection = True

    def _pass_on(self) -> None:
        """One request that is no GET."""
        with self.owner.lock:
            self.owner.written.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path in self.owner.completed:
            self._answer(404, [], _ERROR.format("NoSuchUpload").encode())
            return
        status, headers, answer = self.owner.ask(self.command, self.path, dict(self.headers), body)
        if self.command == "POST" and "uploadId=" in self.path and self.owner.lose_completions:
            self.owner.lose_completions -= 1
            self.owner.completed.add(self.path)
            self._reset()
        elif self.command == "HEAD":
            length = next((int(value) for key, value in headers if key.lower() == "content-length"), 0)
            self._head(status, headers, length)
        else:
            self._answer(status, headers, answer)

    do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

    def _spoil(self, mode: str, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        half = len(body) // 2
        if mode == "none":
            self._answer(status, headers, body)
        elif mode == "flip":
            self._answer(status, headers, body[:half] + bytes([body[half] ^ 4]) + body[half + 1 :])
        elif mode == "short":  # says and sends less than was asked, as if that were all
            self._answer(status, headers, body[:half])
        elif mode == "slow":
            self._head(status, headers, len(body))
            for start in range(0, len(body), SLOW_BYTES_PER_S // 20):
                self.wfile.write(body[start : start + SLOW_BYTES_PER_S // 20])
                time.sleep(0.05 if self.owner.mode == "slow" else 0)
        else:  # cut, stall
            self._head(status, headers, len(body))
            self.wfile.write(body[:half])
            deadline = time.monotonic() + 30
            while mode == "stall" and self.owner.mode == "stall" and time.monotonic() < deadline:
                time.sleep(0.05)
            self._reset() if mode == "stall" else self._end()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._head(status, headers, len(body))
        self.wfile.write(body)

    def _head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status)
        for key, value in headers:
            if key.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _end(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
