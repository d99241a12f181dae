"""The configuration of the TLS proxy in a real nginx, before servers that answer with the request."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from checkout import ROOT

from infra.services import keys

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers and the length of the body of a request, and whom it reached."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = len(self.rfile.read(int(self.headers["Content-Length"])))
        port = self.connection.getsockname()[1]
        body = json.dumps({"headers": dict(self.headers), "length": length, "port": port}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, int]]]:
    """Port of nginx, and the ports of the servers by name."""
    folder = tmp_path_factory.mktemp("nginx")
    servers = {name: ThreadingHTTPServer(("127.0.0.1", 0), Echo) for name in ("s3", "prefect", "mlflow")}
    ports = {name: server.server_address[1] for name, server in servers.items()}
    certificate, key = keys.certificate(folder)
    port = free_port()
    text = (ROOT / "infra" / "docker" / "proxy.conf.template").read_text()
    words = {"${DOMAIN}": "effnet.example", "listen 443": f"listen 127.0.0.1:{port}"}
    words |= {f"${{{name.upper()}}}": f"127.0.0.1:{number}" for name, number in ports.items()}
    words |= {"/etc/nginx/tls/fullchain.pem": str(certificate), "/etc/nginx/tls/privkey.pem": str(key)}
    for word, value in words.items():
        assert word in text
        text = text.replace(word, value)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{text}}}\n"
    )
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"])
    deadline = time.monotonic() + 30
    while not is_open(port):
        assert process.poll() is None, (folder / "error.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield port, ports
    process.terminate()
    process.wait(30)
    for server in servers.values():
        server.shutdown()
        server.server_close()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(port: int, host: str, body: bytes = b"", **headers: str) -> dict[str, object]:
    """What the server behind the proxy received."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with closing(HTTPSConnection("127.0.0.1", port, context=context, timeout=30)) as connection:
        connection.request("POST", "/path", body, {"Host": host, **headers})
        answer = connection.getresponse()
        received = answer.read()
    assert answer.status == 200, received
    assert "max-age" in (answer.getheader("Strict-Transport-Security") or "")
    return dict(json.loads(received))


@pytest.mark.parametrize("name", ["s3", "prefect", "mlflow"])
def test_every_name_leads_to_its_service_with_host_and_password(name: str, proxy: tuple[int, dict[str, int]]) -> None:
    port, servers = proxy
    host = f"{name}.effnet.example"
    received = post(port, host, Authorization="Basic x")
    assert received["port"] == servers[name]
    headers = received["headers"]
    assert isinstance(headers, dict)
    assert headers["Host"] == host  # S3's signature covers it
    assert headers["Authorization"] == "Basic x"
    assert headers["X-Forwarded-Proto"] == "https"


@pytest.mark.parametrize("name", ["s3", "mlflow"])
def test_weights_larger_than_nginx_allows_by_default_pass(name: str, proxy: tuple[int, dict[str, int]]) -> None:
    assert post(proxy[0], f"{name}.effnet.example", b"x" * (12 * 2**20))["length"] == 12 * 2**20


def test_prefect_s_websockets_pass(proxy: tuple[int, dict[str, int]]) -> None:
    received = post(proxy[0], "prefect.effnet.example", Upgrade="websocket", Connection="Upgrade")
    headers = received["headers"]
    assert isinstance(headers, dict)
    assert (headers["Upgrade"], headers["Connection"]) == ("websocket", "upgrade")
