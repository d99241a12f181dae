"""Where a report is written: every command writes a folder of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from conf import compose
from infra import store
from infra.tracking import runs
from models.results import LatencyResult
from tasks.report import publish
from tasks.report.results import publish_part


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store; MLflow takes everything, and all commands run in the same second."""
    monkeypatch.setattr(runs, "start_run", lambda *_, **__: "run")
    for name in ("log_file", "finish_run"):
        monkeypatch.setattr(runs, name, lambda *_: None)
    second = time.gmtime(0)
    monkeypatch.setattr(publish.time, "gmtime", lambda *_: second)
    store.ensure_root(f"file://{tmp_path}/store")
    return f"file://{tmp_path}/store"


def test_two_reports_of_the_same_second_share_no_file(storage: str, tmp_path: Path) -> None:
    laptop, study = (
        compose.compose([f"profile={profile}", f"storage={storage}", f"run_dir={tmp_path}/runs"])
        for profile in ("laptop", "study")
    )
    store.write_json(f"{storage}/reports/laptop/summary.json", {"profile": "laptop"})
    publish_part(study, "latency", LatencyResult())
    pages = [Path(publish.render_again(config)[0]) for config in (laptop, study)]
    assert json.loads(pages[0].with_name("summary.json").read_text())["profile"] == "laptop"
    assert pages[0].parent != pages[1].parent
    assert not store.exists(f"{storage}/reports/study/summary.json")
    assert (tmp_path / "runs" / "latest").resolve() == pages[1].parent


def test_a_damaged_part_is_named_on_the_page_beside_the_others(storage: str, tmp_path: Path) -> None:
    config = compose.compose([f"storage={storage}", f"run_dir={tmp_path}/runs"])
    for name in ("architecture", "nights/b0-pets"):
        store.write(f"{storage}/reports/{config.profile}/{name}.json", b"{")
    publish_part(config, "latency", LatencyResult(threads=7))
    page = Path(publish.render_again(config)[0])
    assert "architecture.json: not JSON" in page.read_text()
    assert "b0-pets.json: not JSON" in page.with_name("night-b0-pets.html").read_text()
