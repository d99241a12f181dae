"""The commands of docs/operations.md that back the embedded services up, and those that restore them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

from conf.schema import Services
from infra import store
from infra.services import stack
from infra.tracking import client

pytestmark = pytest.mark.services
ONLY = ("s3", "mlflow")


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    before = dict(os.environ)
    folder = tmp_path / "runs"
    yield folder
    stack.down(folder)
    os.environ.clear()
    os.environ.update(before)


def commands(section: str) -> list[str]:
    """The commands of a section of the document."""
    text = (ROOT / "docs" / "operations.md").read_text()
    block = re.search(rf"^### {section}\n.*?```text\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return [line for line in block[1].splitlines() if line]


def run(section: str, folder: Path) -> None:
    for command in commands(section):
        subprocess.run(command, shell=True, check=True, cwd=folder)  # noqa: S602 - a command of a document


@pytest.mark.slow
def test_models_resolve_and_objects_are_the_same_after_a_restore(run_dir: Path) -> None:
    stack.up(run_dir, Services(), jobs_at_once=1, say=print, only=ONLY)
    payload = os.urandom(3 * 2**20)
    store.write("s3://effnet/kept", payload)
    mlflow = client.library()
    tracking = mlflow.MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    with mlflow.start_run() as active:
        mlflow.log_text("weights", "model/weights.txt")
    tracking.create_registered_model("kept")
    version = tracking.create_model_version("kept", f"{active.info.artifact_uri}/model", active.info.run_id)
    tracking.set_registered_model_alias("kept", "champion", version.version)
    stack.down(run_dir)

    run("Back up the embedded services", run_dir.parent)
    shutil.rmtree(run_dir)
    run("Restore the embedded services", run_dir.parent)

    stack.up(run_dir, Services(), jobs_at_once=1, say=print, only=ONLY)
    assert store.read("s3://effnet/kept") == payload
    restored = mlflow.MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    assert restored.get_model_version_by_alias("kept", "champion").run_id == active.info.run_id
    assert mlflow.artifacts.load_text(f"{active.info.artifact_uri}/model/weights.txt") == "weights"
    assert (run_dir / "services").stat().st_mode & 0o777 == 0o700
    assert (run_dir / "services" / "credentials.json").stat().st_mode & 0o777 == 0o600
