"""`effnet explain` and `effnet latency` as a person starts them; then what lies in the store and in MLflow."""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from conf import overrides
from conf.compose import compose, from_yaml
from conf.data_set import EvalTransform
from conf.schema import Job
from infra import store
from infra.services.stack import Addresses
from infra.tracking import registry
from infra.tracking.client import library
from models.data.shards import manifest
from models.networks.export import save_weights
from models.results import TrainResult
from tasks.registry.register import WEIGHTS, _register, describe_network, new_version

pytestmark = [pytest.mark.services, pytest.mark.torchrun, pytest.mark.slow]

SMALL = [
    "data=digits",
    "data.limit=300",
    "data.augment.eval_crop_pad=0",
    "explain.recipe.epochs=1",
    "explain.count=3",
    "explain.models=[{},{network:squeezenet1_1}]",
    "storage=s3://effnet/explain",
    "experiment=explain",
]


def effnet(run_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *words, f"run_dir={run_dir}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def part(services: Addresses, services_dir: Path) -> dict[str, Any]:
    done = effnet(services_dir, "explain", *SMALL)
    assert done.returncode == 0, done.stderr
    for word in ("b0", "squeezenet1_1", "cam", "grad-cam", "images right"):
        assert word in done.stdout
    found: dict[str, Any] = store.read_json("s3://effnet/explain/reports/laptop/maps.json")
    return found


def test_the_gallery_has_every_network_on_the_same_images(part: dict[str, Any]) -> None:
    assert [(each["name"], each["method"]) for each in part["models"]] == [("b0", "cam"), ("squeezenet1_1", "grad-cam")]
    ids = [each["id"] for each in part["images"]]
    assert len({each["label"] for each in part["images"]}) == 3
    assert [each["image"] for each in part["maps"]] == ids * 2
    assert all(base64.b64decode(each["png"]).startswith(b"\x89PNG") for each in part["maps"])
    assert part["missing"] == []
    assert part["command"] == "effnet explain profile=laptop"


def test_the_pictures_lie_in_mlflow_and_the_trainings_under_their_run(part: dict[str, Any]) -> None:
    client = library().MlflowClient()
    run_id = part["mlflow_url"].rpartition("/")[2]
    names = [each.path for each in client.list_artifacts(run_id, "maps")]
    assert len(names) == 1 + 2 * 3
    assert "maps/gallery.png" in names
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert {child.data.tags["role"] for child in children} == {"explain"}
    assert len(children) == 2


def test_a_second_run_trains_nothing_and_draws_the_same(part: dict[str, Any], services_dir: Path) -> None:
    before = set(store.list_uris("s3://effnet/explain/jobs"))
    again = effnet(services_dir, "explain", *SMALL)
    assert again.returncode == 0, again.stderr
    assert set(store.list_uris("s3://effnet/explain/jobs")) == before
    found = store.read_json("s3://effnet/explain/reports/laptop/maps.json")
    assert [each["png"] for each in found["maps"]] == [each["png"] for each in part["maps"]]


def test_a_registered_network_is_explained_as_it_is_whatever_the_order_of_its_classes(
    part: dict[str, Any], services_dir: Path, tmp_path: Path
) -> None:
    config = compose(["profile=laptop", *SMALL])
    (uri,) = (u for u in store.list_uris("s3://effnet/explain/jobs") if "/train-b0-" in u and u.endswith("result.json"))
    job_uri = uri.removesuffix("/result.json")
    run = part["models"][0]["mlflow_url"].rpartition("/")[2]
    result = TrainResult(job=job_uri.rpartition("/")[2], job_uri=job_uri, mlflow_run=run, **store.read_json(uri))
    job = from_yaml(Job, store.read(f"{job_uri}/config.yaml").decode())
    (val,) = (s for s in manifest.load(job.manifest_uri)[1].shards if s.split == "val")
    without = replace(config.data, leave_out=[val.name])
    degraded = _register("explained", result, job.model, without, job.manifest_uri, "s3://effnet/explain")
    assert degraded.aliases == ("challenger",)  # what did without a part of the data is never champion
    assert registry.resolve_version("explained/1").tags["left_out_samples"] == str(val.samples)
    registered = _register("explained", result, job.model, config.data, job.manifest_uri, "s3://effnet/explain")
    ref = f"explained/{registered.version}"
    tensors = safetensors.torch.load(store.read(f"{job_uri}/weights.safetensors"))
    backwards = {key: value.flip(0) if key.startswith("classifier.") else value for key, value in tensors.items()}
    save_weights(backwards, tmp_path / WEIGHTS)
    names = manifest.load(job.manifest_uri)[1].classes[::-1]
    for name, crop_pad in (("backwards", 0), ("cropped", 8)):
        description = describe_network(job.model, result.resolution, names, EvalTransform(crop_pad))
        new_version(run, name, tmp_path, description, {"dataset": "digits"}, "s3://effnet/explain")
    done = effnet(
        services_dir,
        "explain",
        *(word for word in SMALL if not word.startswith(("data.augment.eval_crop_pad", "explain.models"))),
        f"explain.models=[{{registered:{ref}}},{{registered:backwards/1}},{{registered:cropped/1}}]",
        "profile=imagenette",
        "launch.nproc_per_node=1",
    )
    assert done.returncode == 0, done.stderr
    assert "cropped/1 was registered with eval_crop_pad 8, which is used instead of 0" in done.stderr
    found = store.read_json("s3://effnet/explain/reports/imagenette/maps.json")
    assert [each["name"] for each in found["models"]] == [ref, "backwards/1", "cropped/1"]
    assert {each["method"] for each in found["models"]} == {"cam"}
    assert [each["top1"] for each in found["models"]][:2] == [part["models"][0]["top1"]] * 2
    pictures, before = [each["png"] for each in found["maps"]], [each["png"] for each in part["maps"][:3]]
    assert pictures[:6] == before * 2
    assert not set(pictures[6:]) & set(before)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("explain.images=[7,9999]", "digits: val has no image 9999; ids are 0 to"),
        ("explain.models=[{network:efficientnet_b9}]", "no network named 'efficientnet_b9'; did you mean"),
        ("explain.models=[{},{registered:nobody@champion}]", "no registered model 'nobody'"),
    ],
)
def test_a_mistake_is_one_line_and_trains_nothing(
    part: dict[str, Any], services_dir: Path, word: str, message: str
) -> None:
    before = store.list_uris("s3://effnet/explain/jobs")
    done = effnet(services_dir, "explain", *overrides.replace(SMALL, [word]))
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert store.list_uris("s3://effnet/explain/jobs") == before


def test_latency_is_measured_and_left_for_the_report(services: Addresses, services_dir: Path) -> None:
    words = ["latency.n=2", "latency.throughput_n=1", "latency.throughput_batch=1", "storage=s3://effnet/explain"]
    done = effnet(services_dir, "latency", *words, "latency.pairs=[{ours:efficientnet_b0,rival:mobilenet_v2}]")
    assert done.returncode == 0, done.stderr
    found = store.read_json("s3://effnet/explain/reports/laptop/latency.json")
    assert [row["network"] for row in found["rows"]] == ["efficientnet_b0", "mobilenet_v2"]
    assert (found["threads"], found["n"]) == (1, 2)
    first, second = (row["batch1_ms"] for row in found["rows"])
    assert found["speedups"][0]["measured"] == pytest.approx(second / first)
