"""An evaluation in MLflow: its run, the metrics of the version's model, tags of the version; and no second run."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import torch

from conf import compose, schema
from conf.data_set import EvalTransform
from infra.tracking import client as mlflow_client
from infra.tracking import registration, registry, runs
from models.networks import export
from models.networks.build import build_model
from models.networks.description import config_json
from models.results import EvalResult
from tasks.evaluate import _find_tracked, record_evaluation
from tasks.jobs import JobRun

pytestmark = pytest.mark.services
TINY, SIDE, CLASSES = schema.Model(width=0.25, depth=0.25), 32, ["cat", "dog"]
EXPERIMENT = "evaluated"


def client() -> Any:
    return mlflow_client.library().MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])


@pytest.fixture(scope="module")
def ref(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registered version that was trained on a data set `pets`."""
    assert mlflow_uri
    folder = tmp_path_factory.mktemp("evaluated")
    torch.manual_seed(0)
    network = build_model(TINY, len(CLASSES)).eval()
    export.save_weights(network.state_dict(), folder / registry.WEIGHTS)
    config = config_json(TINY, resolution=SIDE, class_names=CLASSES, mean=[0.5], std=[0.2], transform=EvalTransform(0))
    (folder / registry.CONFIG).write_text(config)
    module, images = export.serving_module(network), export.example(SIDE)
    answers = export.logits(module, images)
    run = runs.start_run(EXPERIMENT, "train", "train", params={}, tags={})
    made = registration.register(
        run,
        "scored",
        load=lambda: registration.Loaded(module, images, answers),
        files=folder,
        tags={"dataset": "pets", "top1": "70.00"},
    )
    return f"{made.name}/{made.version}"


def evaluation(ref: str, data: str) -> tuple[JobRun, EvalResult]:
    job = schema.Job(kind="evaluate", data_name=data, manifest_uri=f"s3://x/{data}.json", manifest_sha256="ab12" * 16)
    result = EvalResult("key", ref, data, 75.0, 100.0, 400, (180, 120), (200, 200), calibration_error=2.5)
    return JobRun(job, f"evaluate-{data}-0123456789", f"s3://x/jobs/{data}", "label"), result


def test_an_evaluation_is_a_run_with_its_data_and_metrics_of_the_version_s_model(ref: str) -> None:
    run, result = evaluation(ref, "digits")
    config = compose.compose([f"experiment={EXPERIMENT}"])
    assert _find_tracked(run, config, result) is None
    run_id = asyncio.run(record_evaluation.fn(run, config, result))

    made = client().get_run(run_id)
    expected = {"val/top1": 75.0, "val/top5": 100.0, "val/calibration_error": 2.5, "val/mean_per_class": 75.0}
    assert made.data.metrics == pytest.approx(expected | {"val/top1_ci95": 4.24}, abs=0.01)
    assert made.info.run_name == f"evaluate {ref} on digits"
    assert made.data.tags["mlflow.note.content"].startswith("75.00 % top-1 on 400 val images of digits (± 4.24")
    [read] = made.inputs.dataset_inputs
    assert (read.dataset.name, read.tags[0].value) == ("digits", "evaluation")

    version = client().get_model_version(*ref.split("/"))
    model = client().get_logged_model(version.source.removeprefix("models:/"))
    scores = {(metric.key, metric.dataset_name): metric.value for metric in model.metrics}
    assert scores[("val/top1", "digits")] == 75.0
    assert [one.model_id for one in made.inputs.model_inputs] == [model.model_id]
    assert (version.tags["top1.digits"], version.tags["ci95.digits"]) == ("75.00", "4.24")
    assert version.tags["top1"] == "70.00"

    assert _find_tracked(run, config, result) == run_id
    assert asyncio.run(record_evaluation.fn(run, config, result)) == run_id  # after a crash
    assert len(client().get_logged_model(model.model_id).metrics) == len(model.metrics)


def test_an_evaluation_on_the_data_of_the_training_adds_no_tag_beside_its_accuracy(ref: str) -> None:
    run, result = evaluation(ref, "pets")
    asyncio.run(record_evaluation.fn(run, compose.compose([f"experiment={EXPERIMENT}"]), result))
    assert "top1.pets" not in client().get_model_version(*ref.split("/")).tags


def test_an_evaluation_of_some_of_the_images_is_no_accuracy_on_that_data_set(ref: str) -> None:
    run, result = evaluation(ref, "birds")
    config = compose.compose([f"experiment={EXPERIMENT}", "data.limit=400"])
    asyncio.run(record_evaluation.fn(run, config, result))
    assert "top1.birds" not in client().get_model_version(*ref.split("/")).tags
