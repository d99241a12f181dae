"""`effnet gate` as a user starts it, on an ImageNet of a thousand classes with few small images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_archives import photo, write_tree
from made_published import REFERENCE, tensors

from infra.services.stack import Addresses

pytestmark = [pytest.mark.services, pytest.mark.torchrun]

VAL = 20  # classes with an image in val


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wnids = [f"n{label:08d}" for label in range(1000)]
    files = {f"train/{wnid}/{wnid}_1.JPEG": photo(label) for label, wnid in enumerate(wnids)}
    files |= {f"val/{wnid}/{label:08d}.JPEG": photo(1000 + label) for label, wnid in enumerate(wnids[:VAL])}
    return write_tree(tmp_path_factory.mktemp("imagenet"), files)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up numbers under the names of timm's tensors, in a file of the name of Google's weights."""
    path = tmp_path_factory.mktemp("weights") / "tf_efficientnet_b0_aa-00000000.pth"
    torch.save(tensors(json.loads(REFERENCE.read_text())["names"]["timm"]), path)
    return path


def gate(run_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    small = ["profile=paper", "launch.nproc_per_node=1", "storage=s3://effnet/gate", "runtime.cache_gb=1"]
    command = [sys.executable, "-m", "flows", "gate", *small, *words, f"run_dir={run_dir}", "--quiet", "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {check["name"]: (check["outcome"], check["text"]) for check in json.loads(done.stdout)["checks"]}


@pytest.mark.slow
def test_weights_are_imported_and_evaluated_and_too_few_images_fail(
    services: Addresses, services_dir: Path, imagenet: Path, weights: Path
) -> None:
    damaged = weights.with_name("tf_efficientnet_b3_aa-00000000.pth")
    damaged.write_bytes(weights.read_bytes()[:1000])
    words = [f"data.path={imagenet}", "data.allow_partial=true", f"gate.weights=[{damaged},{weights}]"]
    done = gate(services_dir, *words)
    assert done.returncode == 1, done.stderr
    checks = outcomes(done)
    assert list(checks) == ["GPUs", "memory", "disk space", "loader"] + [
        f"weights of efficientnet_b{phi}" for phi in (0, 3, 7)
    ]
    assert checks["GPUs"][0] == ("passed" if torch.cuda.is_available() else "failed")
    assert "of a core for an image of 224 px" in checks["loader"][1]
    outcome, text = checks["weights of efficientnet_b0"]
    assert outcome == "failed"
    assert text.endswith(f"% of {VAL} images, published 76.88 %, tolerance 0.1: ImageNet has 50,000 validation images")
    assert checks["weights of efficientnet_b3"][0] == "failed"
    assert "damaged" in checks["weights of efficientnet_b3"][1]
    assert checks["weights of efficientnet_b7"][0] == "not run"


def test_a_gate_without_weights_says_what_was_not_run(services: Addresses, services_dir: Path) -> None:
    done = gate(services_dir)
    assert done.returncode == 1, done.stderr
    assert [name for name, (outcome, _) in outcomes(done).items() if name.startswith("weights")] == [
        f"weights of efficientnet_b{phi}" for phi in (0, 3, 7)
    ]
    assert {outcome for name, (outcome, _) in outcomes(done).items() if name.startswith("weights")} == {"not run"}
