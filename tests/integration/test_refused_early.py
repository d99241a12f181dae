"""The whole flow on real services: what its last steps would refuse ends it before its first job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from PIL import Image

from infra import store
from infra.services.stack import Addresses

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE = "s3://effnet/refused-early"
SMALL = [
    "data=digits",
    "data.limit=300",
    f"storage={STORAGE}",
    "experiment=refused-early",
    "variants=[efficientnet_b0]",
]


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images whose val lacks a class of train: enough for training, too little for transfer."""
    root, noise = tmp_path_factory.mktemp("lacking"), np.random.default_rng(0)
    for folder, count in (("train/cat", 20), ("train/dog", 20), ("val/cat", 4)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(noise.integers(0, 255, (32, 32, 3), np.uint8)).save(root / folder / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["explain.images=[9999]"], 2, "digits: val has no image 9999"),
        pytest.param(
            ["explain.models=[{registered:nobody@champion}]"], 2, "no registered model 'nobody'", marks=pytest.mark.slow
        ),
        (["data@transfer.data=folder", "transfer.data.path={lacking}"], 3, "classes have no image in test: dog"),
    ],
)
def test_what_the_last_steps_refuse_is_refused_before_the_first_job(
    services: Addresses, services_dir: Path, lacking: Path, words: list[str], code: int, message: str
) -> None:
    assert services
    given = [word.replace("{lacking}", str(lacking)) for word in words]
    argv = [sys.executable, "-m", "flows", "reproduce", *SMALL, *given, f"run_dir={services_dir}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    last = ended.stderr.splitlines()[-1]
    assert (ended.returncode, message in last) == (code, True), ended.stderr
    assert "Traceback" not in ended.stderr
    assert store.list_uris(f"{STORAGE}/jobs") == []
