"""Every program of examples/ runs on real services; the documents there are run by test_deployments.py."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import ROOT
from made_set import image_bytes

from conf import schema
from conf.data_set import EvalTransform
from infra import store
from infra.services.stack import Addresses
from infra.tracking import registration, registry, runs
from models.networks import export
from models.networks.build import build_model
from models.networks.description import MEAN_RGB, STDDEV_RGB, config_json

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE, SIDE = "s3://effnet/examples", 32
TINY = schema.Model(width=0.25, depth=0.25)
SMALL = [
    "data.limit=300",
    "recipe.epochs=1",
    "transfer.data.limit=200",
    "transfer.recipe.epochs=1",
    "launch.nproc_per_node=1",
]


def run(example: str, *argv: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / example), *argv]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def finetuned(services: Addresses, services_dir: Path) -> str:
    return run("finetune.py", *SMALL, f"run_dir={services_dir}", f"storage={STORAGE}")


@pytest.mark.slow
def test_finetune_prints_the_accuracy_on_the_other_data_set(finetuned: str) -> None:
    assert finetuned.splitlines()[-1].startswith("digits: ")
    assert finetuned.splitlines()[-1].endswith("% (top-1, n = 60)")


@pytest.mark.slow
def test_read_shards_gives_every_image_of_the_data_set_once(finetuned: str) -> None:
    manifests = [uri for uri in store.list_uris(STORAGE) if uri.endswith("/manifest.json")]
    counts = []
    for uri in manifests:
        lines = run("read_shards.py", uri.rpartition("/")[0]).splitlines()
        assert {line.split()[-1] for line in lines} == set("0123456789")
        counts.append(len(lines))
    assert sorted(counts) == [200, 300]


def test_classify_gives_the_probabilities_of_the_registered_network(mlflow_uri: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_model(TINY, 4).eval()
    mean, std = [value / 255 for value in MEAN_RGB], [value / 255 for value in STDDEV_RGB]
    export.save_weights(network.state_dict(), tmp_path / registry.WEIGHTS)
    config = config_json(TINY, resolution=SIDE, class_names=[*"abcd"], mean=mean, std=std, transform=EvalTransform(0))
    (tmp_path / registry.CONFIG).write_text(config)
    module, images = export.serving_module(network), export.example(SIDE)
    answers = export.logits(module, images)
    started = runs.start_run("tests", "example", "example", params={}, tags={})
    made = registration.register(
        started, "example", load=lambda: registration.Loaded(module, images, answers), files=tmp_path, tags={}
    )
    registry.promote("example", made.version, "champion")
    (tmp_path / "image.jpg").write_bytes(image_bytes(1))
    classes = example("classify").classify("example@champion", tmp_path / "image.jpg", tmp_path / "fetched")
    assert {name for name, _ in classes} == set("abcd")
    assert sum(probability for _, probability in classes) == pytest.approx(1)
    assert [p for _, p in classes] == sorted((p for _, p in classes), reverse=True)

    [printed] = run("predict.py", "example@champion", str(tmp_path / "image.jpg")).splitlines()
    path, best = printed.rsplit(": ", 1)
    assert path == str(tmp_path / "image.jpg")
    assert best == f"{classes[0][0]}, {classes[0][1]:.1%}"
