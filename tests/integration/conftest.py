"""What several files of these tests ask for: MLflow without Prefect, which starts slowest, and the fault tests' rig."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from night_rig import alert_sink
from playwright.sync_api import sync_playwright
from training_rig import End, Rig, make_rig

from conf.schema import Services
from infra.services import stack


@pytest.fixture(scope="session")
def mlflow_uri(services_dir: Path) -> str:
    """Address of a running MLflow; ``os.environ`` leads to it."""
    started = stack.up(services_dir, Services(), jobs_at_once=1, say=print, only=("s3", "mlflow"))
    return started.addresses.mlflow


@pytest.fixture(scope="session")
def rig(object_store: str, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A small real job in the session's object store, at an address of its own: jobs are told apart by theirs."""
    return make_rig(f"{object_store}/rig-{os.getpid()}", tmp_path_factory.mktemp("rig"))


@pytest.fixture(scope="session")
def reference(rig: Rig) -> End:
    """The undisturbed run."""
    end = rig.run("reference")
    assert end.code == 0, end.log
    return end


@pytest.fixture
def alerted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Texts of the alerts that nights send to the address in ``NIGHT_HOOK``, as they arrive."""
    with alert_sink() as (url, texts):
        monkeypatch.setenv("NIGHT_HOOK", url)
        yield texts


FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine, or the one that ``playwright install`` fetches; skips without either."""
    with sync_playwright() as playwright:
        places = [os.environ.get("CHROMIUM"), shutil.which("chromium"), playwright.chromium.executable_path]
        path = next((place for place in places if place and Path(place).is_file()), None)
        if path is None:
            pytest.skip(f"no Chromium: not in CHROMIUM, not on PATH, not at {places[-1]}")
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()
