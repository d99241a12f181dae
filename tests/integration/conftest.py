"""What several files of these tests ask for: MLflow without Prefect, which starts slowest, and the fault tests' rig."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
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
    """A small real job in the session's object store."""
    return make_rig(f"{object_store}/rig", tmp_path_factory.mktemp("rig"))


@pytest.fixture(scope="session")
def reference(rig: Rig) -> End:
    """The undisturbed run."""
    end = rig.run("reference")
    assert end.code == 0, end.log
    return end


CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
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
    """A headless Chromium; skips where it or Playwright is not installed, since the project depends on neither."""
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"there is no Chromium at {CHROMIUM}")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
