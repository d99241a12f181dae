"""A Prefect server that answers no request but that for its health, as one that is overloaded or half down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from checkout import ROOT
from serving import serving

from infra.errors import ConfigError, TransientError


class Server(ThreadingHTTPServer):
    """Answers the status ``status``, and ``requested`` holds the paths of all requests."""

    status = 503
    requested: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        self.send_response(200 if self.path.endswith("/health") else self.server.status)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"true")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.requested = []
    with serving(server):
        yield server


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (503, TransientError.exit_code, "does not answer (503); the same command does what is missing"),
        (401, ConfigError.exit_code, "refuses the credentials (401)"),
    ],
)
def test_a_flow_whose_requests_prefect_does_not_answer_ends_in_one_line(
    server: Server, status: int, code: int, says: str, tmp_path: Path
) -> None:
    server.status = status
    address = f"http://127.0.0.1:{server.server_port}"
    services = [f"services.prefect={address}/api", f"services.mlflow={address}", "services.s3=aws"]
    argv = [sys.executable, "-m", "flows", "shard", "data=digits", f"storage=file://{tmp_path}/store", *services]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == f"error: Prefect at {address}/api {says}"
    assert "Traceback" not in done.stderr
    assert server.requested[-1] != "/api/health", "the flow itself called it"
