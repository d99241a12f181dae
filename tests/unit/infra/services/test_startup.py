"""The wait for a service that was started, where a server of somebody else has its port."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from serving import serving

from infra.errors import ConfigError
from infra.services import keys, processes, startup


class Foreign(BaseHTTPRequestHandler):
    """A healthy server with a password of its own."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path in ("/health", "/api/health") else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Foreign)) as server:
        yield server.server_port


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_server_with_another_password_on_the_port_is_not_taken_for_the_one_that_was_started(
    name: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.credentials(tmp_path)
    env = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    stack = startup.Stack(tmp_path, dict.fromkeys(startup.PREFERRED, port), env, True, True, "sqlite")
    alive = iter([1, None])  # it ends since its port is taken
    monkeypatch.setattr(processes, "running", lambda *_: next(alive))
    monkeypatch.setattr(processes, "log_tail", lambda *_: "address already in use")
    with pytest.raises(ConfigError, match=r"died at its start; its log ends with:\n  \| address already in use"):
        startup._wait(stack, name)
    unprotected = startup.Stack(tmp_path, stack.ports, env, True, False, "sqlite")
    startup._wait(unprotected, name)  # without passwords nobody can tell them apart
