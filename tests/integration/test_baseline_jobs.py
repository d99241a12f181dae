"""A network of the related work through the real trainer: trained, evaluated, fine-tuned, packed for the registry."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
from made_set import write_set
from training_rig import Rig, finish, make_rig, sha256_of, with_recipe

from conf import compose, schema
from conf.data_set import EvalTransform
from infra import store
from infra.launch import local
from infra.launch.command import torchrun_argv
from infra.tracking import package
from models.networks import export
from models.networks.description import MEAN_RGB, STDDEV_RGB, config_json

pytestmark = [pytest.mark.torchrun, pytest.mark.slow]
pytest.importorskip("pytorchcv", reason="the related work's networks: pip install --no-deps pytorchcv==0.0.74")

SHUFFLENET = schema.Model("shufflenet_v2_x0_5", width=0.5, depth=0.25, resolution=32 / 224)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    made = make_rig(f"file://{tmp_path_factory.mktemp('store')}", tmp_path_factory.mktemp("local"))
    made.job = dataclasses.replace(with_recipe(made.job, epochs=1), model=SHUFFLENET)
    return made


@pytest.fixture(scope="module")
def trained(rig: Rig) -> str:
    end = rig.run("trained")
    assert end.code == 0, end.tail
    return end.job_uri


def result(job_uri: str) -> dict[str, Any]:
    found: dict[str, Any] = store.read_json(f"{job_uri}/result.json")
    return found


def test_it_trains_to_the_same_bits_on_one_process_and_two_and_after_a_kill(rig: Rig, trained: str) -> None:
    alone = rig.run("alone", ranks=1)
    assert alone.code == 0, alone.tail
    killed = rig.run("killed", fault="step@1:25=kill")
    assert killed.code == 0, killed.tail
    assert killed.object("status.json")["resumed_at"] == 20
    assert result(trained)["model"] == "shufflenet_v2_x0_5"
    assert alone.sha256 == killed.sha256 == result(trained)["state_sha256"]


def test_it_computes_activations_again_to_the_same_bits(rig: Rig, trained: str) -> None:
    again = rig.run("recomputed", with_recipe(rig.job, recompute=True))
    assert again.code == 0, again.tail
    assert again.sha256 == result(trained)["state_sha256"]


def test_its_evaluation_gives_the_accuracy_that_training_reported(rig: Rig, trained: str) -> None:
    command, job_uri = rig.command("evaluated")
    weights = result(trained)
    job = dataclasses.replace(
        rig.job, kind="evaluate", init_weights_uri=weights["weights_uri"], init_weights_sha256=weights["weights_sha256"]
    )
    store.write(f"{job_uri}/config.yaml", compose.to_yaml(job).encode())
    argv = torchrun_argv(schema.Launch(nproc_per_node=2), "models.evaluate", job_uri)
    end = finish(local.start(dataclasses.replace(command, argv=argv)), job_uri, time.monotonic())
    assert end.code == 0, end.tail
    same = ("top1", "top5", "class_correct", "class_total", "correct_sha256", "answers_sha256", "calibration_error")
    assert result(job_uri) == {**{key: weights[key] for key in same}, "n": 70}


def test_it_is_fine_tuned_on_other_data_with_a_fresh_classifier(rig: Rig, trained: str) -> None:
    other = write_set(f"{rig.storage}/other", {"train": [64] * 4, "minival": [32], "val": [32]})
    weights = result(trained)
    job = dataclasses.replace(
        rig.job,
        manifest_uri=other.uri,
        manifest_sha256=sha256_of(other.uri),
        init_weights_uri=weights["weights_uri"],
        init_weights_sha256=weights["weights_sha256"],
    )
    end = rig.run("finetuned", job)
    assert end.code == 0, end.tail
    assert result(end.job_uri)["params"] == weights["params"]
    assert result(end.job_uri)["weights_sha256"] != weights["weights_sha256"]


def test_its_weights_become_a_package_that_serves_any_number_of_images(trained: str, tmp_path: Path) -> None:
    described = config_json(
        SHUFFLENET,
        resolution=32,
        class_names=[str(i) for i in range(10)],
        mean=MEAN_RGB,
        std=STDDEV_RGB,
        transform=EvalTransform(0),
    )
    (tmp_path / "config.json").write_text(described)
    store.download(result(trained)["weights_uri"], tmp_path / "weights.safetensors")
    network = export.load_network(tmp_path / "weights.safetensors", json.loads(described))
    module, images = export.serving_module(network), export.example(32)
    package.build(tmp_path / "package", tmp_path, module, images, export.logits(module, images))
    assert (tmp_path / "package" / "data" / "model.pt2").exists()
