"""`effnet serve` as a user starts it, with real HTTP requests."""

from __future__ import annotations

import io
import json
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conf import schema
from conf.data_set import EvalTransform
from flows.__main__ import main
from infra.tracking import champions, registration, registry, runs
from infra.tracking import client as mlflow_client
from models.networks import export
from models.networks.build import build_model
from models.networks.description import config_json

pytestmark = pytest.mark.services
TINY, SIDE, CLASSES = schema.Model(width=0.25, depth=0.25), 32, ["cat", "dog", "owl", "<b>bee</b>"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
PATIENCE_S = 60


def build(seed: int) -> Any:
    torch.manual_seed(seed)
    network = build_model(TINY, len(CLASSES))
    with torch.no_grad():
        network(torch.randn(16, 3, SIDE, SIDE))  # BN statistics away from 0 and 1
        network.classifier.weight.mul_(100)  # type: ignore[union-attr, operator]
    return network.eval()


def register(seed: int, folder: Path) -> None:
    network = build(seed)
    export.save_weights(network.state_dict(), folder / registry.WEIGHTS)
    config = config_json(TINY, resolution=SIDE, class_names=CLASSES, mean=MEAN, std=STD, transform=EvalTransform(0))
    (folder / registry.CONFIG).write_text(config)
    module, images = export.serving_module(network), export.example(SIDE)
    run = runs.start_run("tests", "serve", f"serve {seed}", params={}, tags={})
    answers = export.logits(module, images)
    registration.register(run, "http", load=lambda: registration.Loaded(module, images, answers), files=folder, tags={})


def png() -> tuple[bytes, Any]:
    pixels = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), pixels


def expected(seed: int) -> dict[str, float]:
    """Probabilities of the image, which no crop or resize changes, from the plain network."""
    pixels = torch.from_numpy(png()[1]).permute(2, 0, 1)[None] / 255
    normalized = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.inference_mode():
        return dict(zip(CLASSES, build(seed)(normalized).softmax(dim=1)[0].tolist(), strict=True))


def request(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    sent = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(sent, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def predict(url: str) -> tuple[str, dict[str, float]]:
    status, text = request(f"{url}/predict", png()[0])
    assert status == 200, text
    answer = json.loads(text)
    shares = [one["probability"] for one in answer["predictions"]]
    assert shares == sorted(shares, reverse=True)
    return answer["model"], {one["class"]: one["probability"] for one in answer["predictions"]}


@pytest.fixture(scope="module")
def url(mlflow_uri: str, services_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    register(1, tmp_path_factory.mktemp("served"))
    registry.promote("http", 1, "champion")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flows", "serve", "http@champion", "--port", str(port), f"run_dir={services_dir}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "effnet serve: fetching http@champion, and checking its digest\n"
    assert process.stdout.readline() == f"http/1 on http://127.0.0.1:{port}; Ctrl-C ends it\n"
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    assert process.wait(30) == 130
    process.stdout.close()


@pytest.fixture(scope="module")
def later_versions(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Versions 2 and 3 of the model that is served."""
    for seed in (2, 3):
        register(seed, tmp_path_factory.mktemp("served"))


def test_an_image_file_gets_the_class_names_and_probabilities_of_the_registered_network(url: str) -> None:
    model, shares = predict(url)
    assert model == "http/1"
    assert shares == pytest.approx(expected(1), abs=1e-4)
    status, text = request(f"{url}/predict?top=2", png()[0])
    assert (status, len(json.loads(text)["predictions"])) == (200, 2)


@pytest.mark.slow
def test_concurrent_images_are_answered_in_batches_as_alone(url: str) -> None:
    def count(name: str) -> float:
        return float(request(f"{url}/metrics")[1].partition(f"\neffnet_batch_images_{name} ")[2].partition("\n")[0])

    images, batches = count("sum"), count("count")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: predict(url), range(48)))
    assert {model for model, _ in answers} == {"http/1"}
    for _, shares in answers:
        assert shares == pytest.approx(expected(1), abs=1e-4)
    assert count("sum") - images == 48
    assert count("count") - batches < 48


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/predict", b"no image at all", 422, "the image cannot be used"),
        ("/predict", png()[0][:200], 422, "the image cannot be used"),
        ("/predict", b"", 400, "the body is empty"),
        ("/predict", bytes(21 * 2**20), 413, "more than 20 MiB"),
        ("/predict?top=0", png()[0], 422, "greater than or equal to 1"),
        ("/predict", None, 405, "Method Not Allowed"),
        ("/nowhere", None, 404, "Not Found"),
    ],
)
def test_bad_input_is_refused_with_the_reason(
    url: str, path: str, body: bytes | None, status: int, reason: str
) -> None:
    code, text = request(f"{url}{path}", body)
    assert (code, reason in text) == (status, True), text
    assert request(f"{url}/health")[0] == 200


def test_a_request_under_another_host_name_is_refused(url: str) -> None:
    assert request(f"{url}/health", Host="evil.example")[0] == 400


def test_health_metrics_and_page_answer(url: str) -> None:
    predict(url)
    assert json.loads(request(f"{url}/health")[1]) == {"status": "ok", "model": "http/1"}
    counted = request(f"{url}/metrics")[1]
    assert float(counted.partition('effnet_predictions_total{status="200"} ')[2].partition("\n")[0]) >= 1
    assert "effnet_prediction_seconds_count" in counted
    assert "<h1>Classify an image</h1>" in request(f"{url}/")[1]


def until_served(url: str, model: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while json.loads(request(f"{url}/health")[1])["model"] != model:
        assert time.monotonic() < deadline, f"{model} is not served after {PATIENCE_S} s"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.usefixtures("later_versions")
def test_a_moved_alias_swaps_the_model_and_a_damaged_one_does_not(url: str, tmp_path: Path) -> None:
    mlflow = mlflow_client.library().MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    damaged = mlflow.get_model_version("http", "3").source.removeprefix("models:/")
    (tmp_path / registry.WEIGHTS).write_bytes(b"damaged")
    mlflow.log_model_artifacts(damaged, str(tmp_path), registry.FILES_FOLDER)
    registry.promote("http", 2, "champion")
    until_served(url, "http/2")
    assert predict(url)[1] == pytest.approx(expected(2), abs=1e-4)
    registry.promote("http", 3, "champion")
    time.sleep(8)  # longer than the time between two looks at the alias
    assert predict(url)[0] == "http/2"
    registry.promote("http", 1, "champion")
    until_served(url, "http/1")
    assert "effnet_swaps_total 2.0" in request(f"{url}/metrics")[1]


def test_a_mistake_is_one_line_before_anything_is_served(
    url: str, services_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    taken, settings = url.rpartition(":")[2], f"run_dir={services_dir}"
    for words, message in (
        (["http@champion", "--port", taken], f"port {taken} is in use"),
        (["http@champion", "--port", "eighty"], "--port takes a number, is 'eighty'"),
        (["http@champion", "--port", "70000"], "--port 70000 is not a port"),
        (["http@champion", "--max-batch", "0"], "--max-batch takes a number of 1 or more, is '0'"),
        (["http@champion", "--max-wait-ms", "-1"], "--max-wait-ms takes a number, is '-1'"),
        (["http@best"], "http has no alias 'best'"),
    ):
        assert main(["serve", *words, settings]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("later_versions")
def test_a_rollback_takes_seconds_and_the_server_answers_with_the_old_weights(
    url: str, services_dir: Path, object_store: str
) -> None:
    storage = f"{object_store}/serve-rollback"
    assert champions.move_champion(storage, "http", 2, expected=1, why="better") is not None
    until_served(url, "http/2")
    command = [sys.executable, "-m", "flows", "rollback", "http", f"storage={storage}", f"run_dir={services_dir}"]
    began, spent = time.monotonic(), children_cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert children_cpu_s() - spent < 5, "5 s are promised; the machine may do other things too"
    assert time.monotonic() - began < 30
    until_served(url, "http/1")
    assert predict(url)[1] == pytest.approx(expected(1), abs=1e-4), "as only the weights of version 1 answer"


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
