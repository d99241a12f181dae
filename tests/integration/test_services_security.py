"""What somebody without the password gets from the embedded services: another user, a web page, a program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import owner_calls
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from conf.schema import Services
from flows.cli import summary
from infra.doctor import service_checks
from infra.doctor.finding import FAIL
from infra.services import deployments, keys, login, processes, programs, stack
from infra.services.http import call

EMBEDDED = Services()
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
CREATE = "/api/2.0/mlflow/experiments/create"
as_nobody = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user"
)


def run_as_nobody(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NOBODY, *argv], capture_output=True, text=True, timeout=60, env={}, cwd="/")


def test_credentials_of_an_older_version_gain_the_passwords_and_keep_their_keys(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    path = tmp_path / "services" / "credentials.json"
    path.write_text(json.dumps({"access_key": "old", "secret_key": "kept"}))
    env = stack.environment(tmp_path, EMBEDDED)
    assert (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]) == ("old", "kept")
    assert len(env["MLFLOW_TRACKING_PASSWORD"]) > 30
    assert env["PREFECT_API_AUTH_STRING"].partition(":")[2] not in ("", env["MLFLOW_TRACKING_PASSWORD"])
    assert stack.environment(tmp_path, EMBEDDED) == env
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["[]", "3", "{"])
def test_damaged_credentials_are_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "credentials.json").write_text(text)
    with pytest.raises(stack.ConfigError, match=r"credentials\.json is damaged; delete it"):
        stack.prepare(tmp_path, EMBEDDED)


def test_a_user_s_own_logins_do_not_disturb_the_embedded_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "theirs")
    env = stack.environment(tmp_path, EMBEDDED)
    assert (env["PREFECT_API_KEY"], env["MLFLOW_TRACKING_TOKEN"]) == ("", "")
    assert "theirs" not in env.values()


def test_our_passwords_are_not_sent_to_somebody_else_s_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Services(prefect="https://p.example/api", mlflow="https://m.example")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:theirs")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "theirs")
    names = {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    assert names.isdisjoint(stack.environment(tmp_path, theirs))  # the user's own stay
    ours = {name: value for name, value in stack.environment(tmp_path, EMBEDDED).items() if name in names}
    for name, value in ours.items():  # inherited from a command that used the embedded ones
        monkeypatch.setenv(name, value)
    assert {stack.environment(tmp_path, theirs)[name] for name in names} == {""}


def test_no_service_is_told_its_password_where_the_setting_is_off(tmp_path: Path) -> None:
    env = programs.prefect_server(tmp_path, 1, "").env | programs.mlflow_server(tmp_path, 2, None).env
    assert not {name for name in env if "AUTH" in name}
    assert "basic-auth" not in programs.mlflow_server(tmp_path, 2, None).argv


def test_people_are_told_how_to_log_in_only_where_a_password_is_asked() -> None:
    where = stack.Addresses("http://s", "http://p/api", "http://m")
    assert re.search(r"log in     \S*effnet open prefect or \S*effnet open mlflow\n", summary.services(where, EMBEDDED))
    assert "effnet open" not in summary.services(where, Services(auth=False))


def test_a_service_that_is_open_to_all_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "asks_for_password", lambda *_: False)
    assert "(services.auth=false): every local user can run code as you" in (login.warning("", "prefect", False) or "")
    assert "was started without a password" in (login.warning("", "mlflow", True) or "")
    monkeypatch.setattr(login, "asks_for_password", lambda *_: True)
    assert login.warning("", "prefect", True) is None


@pytest.mark.services
def test_without_the_password_everything_but_health_is_refused(services: stack.Addresses) -> None:
    for url in (f"{services.prefect}/health", f"{services.mlflow}/health"):
        assert call("GET", url)[0] == 200
    prefect = [
        ("GET", "/admin/version"),
        ("GET", "/work_pools/effnet"),
        ("POST", "/flow_runs/filter"),
        ("POST", "/flows/"),
        ("POST", "/ui/flow_runs/history"),
        ("GET", "/csrf-token?client=x"),
    ]
    for method, path in prefect:
        assert call(method, services.prefect + path, {} if method == "POST" else None)[0] in (401, 403), path
    mlflow = [
        ("POST", CREATE),
        ("GET", "/"),
        ("POST", "/graphql"),
        ("GET", "/get-artifact?path=a&run_uuid=b"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/a"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/chat"),
        ("POST", "/v1/traces"),
        ("GET", "/openapi.json"),
        ("GET", login._MLFLOW_ENTRY),
    ]
    for method, path in mlflow:
        assert call(method, services.mlflow + path, None if method == "GET" else {})[0] == 401, path
    wrong = {"Authorization": "Basic ZWZmbmV0OmVmZm5ldA=="}
    assert call("GET", f"{services.prefect}/admin/version", headers=wrong)[0] == 401
    assert call("POST", services.mlflow + CREATE, {"name": "x"}, headers=wrong)[0] == 401


@pytest.mark.services
@pytest.mark.parametrize("path", ["/events/in", "/events/out", "/logs/out"])
@pytest.mark.parametrize("subprotocols", [None, ["prefect"]])
def test_websockets_without_the_password_are_closed(
    services: stack.Addresses, path: str, subprotocols: list[str] | None
) -> None:
    def speak() -> None:
        with connect(services.prefect.replace("http", "ws", 1) + path, subprotocols=subprotocols) as socket:  # type: ignore[arg-type]
            socket.send(json.dumps({"type": "auth", "token": "effnet:guess"}))
            assert "auth_success" not in str(socket.recv(timeout=30))

    with pytest.raises((InvalidHandshake, ConnectionClosed)):
        speak()


@pytest.mark.services
@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null"])
def test_pages_of_other_origins_get_no_leave_even_with_the_password(services: stack.Addresses, origin: str) -> None:
    asks = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    assert call("OPTIONS", f"{services.prefect}/flows/", headers=asks)[0] == 400
    assert owner_calls.mlflow("POST", CREATE, {"name": "by-a-page"}, Origin=origin)[0] == 403
    assert owner_calls.mlflow("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", Origin=origin)[0] == 403


@pytest.mark.services
def test_a_foreign_host_name_gets_nothing(services: stack.Addresses) -> None:
    rebound = {"Host": "evil.example"}
    assert call("GET", f"{services.prefect}/work_pools/effnet", headers=rebound)[0] == 401
    assert call("POST", f"{services.prefect}/flows/", {"name": "x"}, headers=rebound)[0] in (401, 403)
    assert call("POST", services.mlflow + CREATE, {"name": "x"}, headers=rebound)[0] in (401, 403)
    assert owner_calls.mlflow("POST", CREATE, {"name": "x"}, Host="evil.example")[0] == 403


@pytest.mark.services
def test_the_password_alone_does_not_let_a_form_post_to_prefect(services: stack.Addresses) -> None:
    login_header = {"Authorization": "Basic " + _base64(os.environ["PREFECT_API_AUTH_STRING"])}
    status, answer = call("POST", f"{services.prefect}/flows/", {"name": "by-a-form"}, headers=login_header)
    assert (status, answer) == (403, {"detail": "Missing CSRF token."})
    assert owner_calls.prefect("POST", "/flows/", {"name": "by-us"})[0] in (200, 201)


@pytest.mark.services
@pytest.mark.parametrize("location", ["/etc/theirs", "file:///etc/theirs", "s3://other/x", "mlflow-artifacts:/../../x"])
def test_experiments_keep_their_artifacts_in_the_store_even_with_the_password(
    services: stack.Addresses, location: str
) -> None:
    assert owner_calls.mlflow("POST", CREATE, {"name": "outside", "artifact_location": location})[0] == 400
    ajax = CREATE.replace("/api/", "/ajax-api/")
    assert owner_calls.mlflow("POST", ajax, {"name": "outside", "artifact_location": location})[0] == 400


@pytest.mark.services
@as_nobody
def test_another_user_of_the_machine_reads_no_secret_and_starts_nothing(
    services: stack.Addresses, services_dir: Path
) -> None:
    folder = services_dir / "services"
    pids = [handle.pid for name in ("s3", "prefect", "mlflow") if (handle := processes.running(folder, name))]
    assert len(pids) == 3
    for path in (
        folder / "credentials.json",
        folder / "prefect" / "prefect.db",
        *(f"/proc/{pid}/environ" for pid in pids),
    ):
        assert run_as_nobody("cat", str(path)).returncode != 0, path
    assert run_as_nobody("ls", str(folder)).returncode != 0
    secrets = keys.credentials(folder).values()
    seen = run_as_nobody("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout
    assert not [secret for secret in secrets if secret in seen]
    post = (
        "import sys, urllib.request as u\n"
        "for url in sys.argv[1:]:\n"
        "    try: print(u.urlopen(u.Request(url, b'{}', {'Content-Type': 'application/json'}), timeout=30).status)\n"
        "    except u.HTTPError as error: print(error.code)"
    )
    urls = [f"{services.prefect}/deployments/filter", services.mlflow + CREATE]
    done = run_as_nobody(sys.executable, "-I", "-S", "-c", post, *urls)
    if done.returncode != 0:
        pytest.skip(f"user nobody cannot run this Python: {done.stderr[-100:]}")
    assert set(done.stdout.split()) <= {"401", "403"}


@pytest.mark.services
def test_a_flow_run_may_not_choose_its_command_even_with_the_password(
    services: stack.Addresses, tmp_path: Path
) -> None:
    # As a deployment of our pool has it; no worker runs, so nothing would start in any case.
    flow = owner_calls.prefect("POST", "/flows/", {"name": "harmless"})[1]["id"]
    body = {"name": "harmless", "flow_id": flow, "work_pool_name": programs.WORK_POOL}
    status, made = owner_calls.prefect("POST", "/deployments/", body)
    assert status in (200, 201), made
    start = f"/deployments/{made['id']}/create_flow_run"
    for variables in ({"command": f"touch {tmp_path}/ran"}, {"env": {"LD_PRELOAD": "x.so"}}, {"working_dir": "/"}):
        status, answer = owner_calls.prefect(
            "POST", start, {"state": {"type": "SCHEDULED"}, "job_variables": variables}
        )
        assert status == 422, answer
    template = owner_calls.prefect("GET", f"/work_pools/{programs.WORK_POOL}")[1]["base_job_template"]
    assert template == deployments.JOB_TEMPLATE  # with `env` a mapping in it, the worker would merge the caller's


@pytest.mark.services
def test_a_pool_of_an_older_version_gets_our_template(services: stack.Addresses, services_dir: Path) -> None:
    old = {
        "job_configuration": {"command": "{{ command }}"},
        "variables": {"properties": {"command": {"type": "string"}}},
    }
    pool = f"/work_pools/{programs.WORK_POOL}"
    assert owner_calls.prefect("PATCH", pool, {"base_job_template": old})[0] == 204
    stack.up(services_dir, EMBEDDED, jobs_at_once=1, say=print, only=("prefect",))
    assert owner_calls.prefect("GET", pool)[1]["base_job_template"] == deployments.JOB_TEMPLATE


@pytest.mark.services
def test_doctor_calls_a_service_that_is_open_to_all_a_failure(
    services: stack.Addresses, services_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [finding for finding in service_checks.status(services_dir, EMBEDDED) if finding.mark == FAIL]
    monkeypatch.setattr(login, "asks_for_password", lambda *_: False)
    failures = [finding.text for finding in service_checks.status(services_dir, EMBEDDED) if finding.mark == FAIL]
    assert len(failures) == 2
    assert all("every local user can run code as you" in text for text in failures)


@pytest.mark.services
def test_what_opens_the_browser_shows_no_secret_on_a_command_line(
    services: stack.Addresses, services_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(login.webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    secrets = keys.credentials(services_dir / "services").values()
    for name in login.PAGES:
        said = stack.open_in_browser(services_dir, EMBEDDED, name)
        assert not [secret for secret in secrets if secret in said + opened[-1]]
        page = Path(opened[-1].removeprefix("file://"))
        assert page.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(login.webbrowser, "open", lambda _: False)
    assert f"effnet:{os.environ['MLFLOW_TRACKING_PASSWORD']}@" in stack.open_in_browser(
        services_dir, EMBEDDED, "mlflow"
    )


def test_only_prefect_and_mlflow_can_be_opened_and_only_when_they_run(tmp_path: Path) -> None:
    with pytest.raises(stack.ConfigError, match="there are prefect and mlflow"):
        stack.open_in_browser(tmp_path, EMBEDDED, "s3")
    with pytest.raises(stack.ConfigError, match="does not run; start it with `effnet up`"):
        stack.open_in_browser(tmp_path, EMBEDDED, "mlflow")


def _base64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()
