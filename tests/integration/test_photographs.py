"""`effnet photographs` as a user starts it; then what lies in the store, in MLflow and in the registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra import store
from infra.services.stack import Addresses
from infra.tracking import registry
from models.networks import packaged

pytestmark = pytest.mark.services

PLACE = ["storage=s3://effnet/photographs", "experiment=photographs"]
SMALL = ["photographs.networks=[efficientnet_lite0]", *PLACE]


def effnet(run_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", "photographs", *words, f"run_dir={run_dir}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def part(services: Addresses, services_dir: Path) -> dict[str, Any]:
    done = effnet(services_dir, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "palace 0.280" in done.stdout
    found: dict[str, Any] = store.read_json("s3://effnet/photographs/reports/laptop/photographs.json")
    return found


@pytest.mark.slow  # tests/e2e: all networks
def test_the_part_names_what_the_registered_network_sees(part: dict[str, Any]) -> None:
    assert [cell["classes"][0] for cell in part["maps"]] == ["palace", "daisy", "academic gown"]
    [network] = part["networks"]
    version = registry.resolve_version(network["version"])
    assert (version.tags["variant"], version.tags["preprocessing"]) == ("efficientnet_lite0", "lite")
    assert network["published_top1"] == 75.1
    assert part["missing"] == []


@pytest.mark.slow
def test_a_user_s_photograph_is_seen_by_the_version_that_is_there(
    part: dict[str, Any], services_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "temple.jpg"
    path.write_bytes(packaged.photograph("china"))
    done = effnet(services_dir, *SMALL, f"photographs.images=[{path}]", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [cell["photograph"] for cell in result["maps"]] == ["temple"]
    assert result["maps"][0]["classes"][0] == "palace"
    assert result["networks"][0]["version"] == part["networks"][0]["version"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("photographs.images=[/nowhere/cat.jpg]", "no file /nowhere/cat.jpg"),
        pytest.param("photographs.networks=[]", "photographs.networks is empty", marks=pytest.mark.slow),
        pytest.param(
            "photographs.networks=[efficientnet_b0]",
            "'efficientnet_b0' is not one of efficientnet_lite0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_mistake_is_one_line(services: Addresses, services_dir: Path, word: str, message: str) -> None:
    done = effnet(services_dir, *PLACE, word, "--quiet")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
