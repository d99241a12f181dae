"""An ONNX file in int8: what it computes, what its metadata say, and when it is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from made_set import MadeSet, write_set
from numpy.typing import NDArray
from torch import nn

from conf.data_set import EvalTransform
from infra.errors import ArtifactError
from models.data.loading import selection
from models.experiments import quantization
from models.networks import export, formats

SIDE = 32
CONFIG: dict[str, Any] = {
    "input": {"resolution": SIDE, "crop_pad": 4, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]},
    "class_names": [f"class {number}" for number in range(10)],
}


@dataclass(frozen=True)
class Network:
    """A network, and a data set whose labels are the network's answers."""

    module: nn.Module
    data: MadeSet


def read_images(made: MadeSet, split: str) -> NDArray[np.float32]:
    """All images of a split as the network takes them."""
    return np.concatenate([images for images, _ in quantization._batches(made.manifest, made.uri, split, 99, CONFIG)])


@pytest.fixture
def network(tmp_path: Path) -> Network:
    made = write_set(f"file://{tmp_path}/set", {"train": [40], "minival": [8], "val": [60]})
    torch.manual_seed(3)
    classifier = nn.Linear(32, 10)
    layers = (nn.Conv2d(3, 32, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
    module = nn.Sequential(*layers).eval().requires_grad_(False)
    classifier.bias.sub_(module(torch.from_numpy(read_images(made, "train"))).mean(0))  # it predicts several classes
    answers = export.logits(module, read_images(made, "val")).argmax(axis=1)
    assert len(set(answers.tolist())) > 3
    made.manifest.table["label"][48:] = answers
    return Network(module, made)


@pytest.mark.slow
def test_the_file_computes_in_integers_and_states_both_accuracies(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits: list[str] = []
    read = selection.read

    def spy(*given: Any) -> Any:
        splits.append(given[2])
        return read(*given)

    monkeypatch.setattr(selection, "read", spy)
    path, made = tmp_path / "int8.onnx", network.data
    compared = quantization.write_int8(network.module, CONFIG, made.manifest, made.uri, path, max_loss=30)
    assert splits == ["train"] * 2 + ["val"] * 2, "ranges come from train only"
    assert (compared.calibrated, compared.difference.n) == (40, 60)
    assert compared.float_top1 == 100
    assert 70 <= compared.top1 <= 100

    nodes = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes
    assert {tensor.data_type for tensor in onnx.load(path).graph.initializer} >= {onnx.TensorProto.INT8}
    described = {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}
    assert described["accuracy"] == {
        "data": "made",
        "split": "val",
        "images": 60,
        "top1": round(compared.top1, 2),
        "float32_top1": 100.0,
    }
    assert described["calibration"] == {"split": "train", "images": 40}
    assert (described["input"], described["class_names"]) == (CONFIG["input"], CONFIG["class_names"])

    right = 0
    for images, labels in quantization._batches(made.manifest, made.uri, "val", 60, CONFIG):
        right += int((formats.open_onnx(path).run(["logits"], {"images": images})[0].argmax(1) == labels).sum())
    assert compared.top1 == pytest.approx(100 * right / 60)


@pytest.mark.slow
def test_a_file_that_loses_more_than_is_allowed_is_not_written(network: Network, tmp_path: Path) -> None:
    path, made = tmp_path / "int8.onnx", network.data
    refusal = r"int8 loses .* points of 100\.00 % top-1 on 60 images of val, allowed are -1; int8\.onnx is not written"
    with pytest.raises(ArtifactError, match=refusal):  # more than 100 % is impossible
        quantization.write_int8(network.module, CONFIG, made.manifest, made.uri, path, max_loss=-1)
    assert not path.exists()


def test_images_are_normalized_as_the_network_expects(network: Network) -> None:
    made = network.data
    (images, labels), *_ = quantization._batches(made.manifest, made.uri, "val", 2, CONFIG)
    chosen = selection.read(made.manifest, made.uri, "val", [0, 59])
    pixels = chosen.squares(SIDE, EvalTransform(4)).astype(np.float64)
    expected = (pixels / 255 - [0.4, 0.5, 0.6]) / 0.2
    np.testing.assert_allclose(images.transpose(0, 2, 3, 1), expected, atol=1e-5)
    assert labels.tolist() == chosen.labels
