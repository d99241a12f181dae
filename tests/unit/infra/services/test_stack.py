"""What `effnet status` says about the services."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.schema import Services
from infra.errors import ConfigError
from infra.services import processes, stack, startup
from infra.services.processes import Handle


@pytest.mark.parametrize("healthy", [True, False])
def test_a_worker_is_described_by_its_process_since_it_has_no_address(
    healthy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {"s3": 1, "prefect": 2, "mlflow": 3}
    (tmp_path / "services").mkdir()
    monkeypatch.setattr(stack, "_chosen_ports", lambda _: ports)
    monkeypatch.setattr(processes, "running", lambda *_: Handle(41, "then"))
    monkeypatch.setattr(startup, "answers", lambda *_: healthy)
    lines = stack.status(tmp_path, Services())
    if healthy:
        assert (lines["prefect"], lines["worker"]) == ("running at http://127.0.0.1:2", "running as process 41")
        return
    log = tmp_path.resolve() / "services" / "logs"
    assert lines["mlflow"] == f"started at http://127.0.0.1:3, but does not answer; see {log}/mlflow.log"
    assert lines["worker"] == f"started as process 41, but does not answer; see {log}/worker.log"


def test_workers_of_a_server_of_yours_are_not_given_the_address_of_the_server(tmp_path: Path) -> None:
    lines = stack.status(tmp_path, Services(prefect="https://prefect.example/api"))
    assert lines["prefect"] == "yours: https://prefect.example/api"
    assert lines["worker"].startswith("yours: those that take runs from https://prefect.example/api, whose page")


def test_a_run_folder_below_a_file_is_refused_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=rf"^run_dir={tmp_path}/file/runs must be a folder, and {tmp_path}/file is a"):
        stack.prepare(tmp_path / "file" / "runs", Services())
