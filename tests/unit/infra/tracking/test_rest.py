"""Requests to MLflow's REST API, against a local server."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serving import serving

from infra.errors import ConfigError, PermanentError, TransientError
from infra.tracking import rest


class Server(ThreadingHTTPServer):
    """Answers requests with the given statuses and bodies; keeps what it was sent, and counts connections."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, str]] = []
        self.seen: list[tuple[str, str]] = []
        self.connections = 0

    def get_request(self) -> tuple[Any, Any]:
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))
        status, body = self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server at the address of MLflow, for a user without credentials."""
    with serving(Server()) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server


def test_all_pages_of_a_search_are_read(server: Server) -> None:
    server.answers = [(200, '{"runs": [1, 2], "next_page_token": "a+b"}'), (200, '{"runs": [3]}')]
    assert list(rest.pages("GET", "runs/search", "runs", max_results=2)) == [1, 2, 3]
    assert [path for path, _ in server.seen] == [
        "/api/2.0/mlflow/runs/search?max_results=2",
        "/api/2.0/mlflow/runs/search?max_results=2&page_token=a%2Bb",
    ]


def test_requests_share_a_connection_and_are_preceded_by_none(server: Server) -> None:
    server.answers = [(200, "{}")] * 3
    for _ in range(3):
        rest.get("runs/get", run_id="1")
    assert len(server.seen) == 3
    assert server.connections == 1


def test_a_failure_of_the_server_is_repeated(server: Server) -> None:
    server.answers = [(503, "busy"), (200, '{"run": {}}')]
    assert rest.get("runs/get", run_id="1") == {"run": {}}


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}', rest.MissingError, "no run"),
        (400, '{"error_code": "BAD_REQUEST", "message": "no filter"}', PermanentError, r"\(400\): no filter"),
        (401, "who are you", ConfigError, "MLFLOW_TRACKING_PASSWORD"),
        (200, "<html>", PermanentError, "is no MLflow server"),
    ],
)
def test_a_refusal_is_an_error_of_its_kind(
    server: Server, status: int, body: str, error: type[Exception], message: str
) -> None:
    server.answers = [(status, body)]
    with pytest.raises(error, match=message):
        rest.get("runs/get", run_id="1")


def test_a_server_that_does_not_answer_is_a_transient_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(TransientError, match="does not answer: start it with `effnet up`"):
        rest.get("runs/get", run_id="1")


def test_a_server_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rest._ANSWER_S <= 20, "a user waits for it"
    monkeypatch.setattr(rest, "_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TransientError, match=r"did not answer within 0\.5 s: it is busy or hangs; `effnet down`"):
            rest.get("runs/get", run_id="1")
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # no second attempt
            silent.accept()


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({}, ""),
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "Basic dTpw"),
        ({"MLFLOW_TRACKING_TOKEN": "secret"}, "Bearer secret"),  # by MLflow's request function
    ],
)
def test_a_user_logs_in_by_every_way_that_mlflow_knows(
    server: Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], header: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server.answers = [(200, "{}")]
    rest.get("runs/get", run_id="1")
    assert [login for _, login in server.seen] == [header]


def test_a_file_of_credentials_is_read(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_username=u\nmlflow_tracking_password=p\n")
    server.answers = [(200, "{}")]
    rest.get("runs/get", run_id="1")
    assert [login for _, login in server.seen] == ["Basic dTpw"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "BAD_REQUEST: (sqlite3.IntegrityError) UNIQUE constraint failed: params.key, params.run_uuid",
            rest.SimultaneousError,
        ),
        (
            "BAD_REQUEST: (psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint",
            rest.SimultaneousError,
        ),
        ("INVALID_PARAMETER_VALUE: Changing param values is not allowed", PermanentError),
    ],
)
def test_the_second_of_two_simultaneous_writers_tries_again(text: str, kind: type[Exception]) -> None:
    assert type(rest.translate_error(RuntimeError(text), 400, "http://host")) is kind
