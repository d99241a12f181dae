"""The config.json beside weights of the Hub: facts in place of guesses, and what is refused or not used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_published
import pytest
import safetensors.torch
import torch
from matrix import with_slow_rest

from conf import schema
from conf.data_set import EvalTransform
from conf.experiments import CLASSES_GIVEN
from infra.errors import ConfigError
from models.experiments import published_file
from models.experiments.published_file import PublishedFile
from models.networks.build import resolve_architecture

NAMES = json.loads(made_published.REFERENCE.read_text())["names"]["timm"]
PREPARATION = {
    "tag": "aa_in1k",
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "num_classes": 1000,
}
CONFIG = {
    "architecture": "tf_efficientnet_b0",
    "num_classes": 1000,
    "global_pool": "avg",
    "pretrained_cfg": PREPARATION,
}
ADVPROP = {"mean": [0.5] * 3, "std": [0.5] * 3}
UNTOLD = "does not show whether it is timm's efficientnet"


def read(
    folder: Path, config: object, classes: int = 1000, file: str = "model.safetensors", **settings: Any
) -> PublishedFile:
    tensors = made_published.tensors(NAMES)
    tensors |= {"classifier.weight": torch.randn(classes, 1280), "classifier.bias": torch.zeros(classes)}
    safetensors.torch.save_file(tensors, folder / file)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return published_file.read(schema.Published(path=str(folder / file), **settings))


def prepared(**changes: Any) -> dict[str, Any]:
    return CONFIG | {"pretrained_cfg": PREPARATION | changes}


@pytest.mark.parametrize(
    ("config", "origin", "preprocessing", "side", "transform"),
    with_slow_rest(
        [
            (CONFIG, "timm_tf", "imagenet", 224, EvalTransform()),
            (prepared(**ADVPROP), "timm_tf", "advprop", 224, EvalTransform()),
            (
                PREPARATION | {"architecture": "efficientnet_b0"},
                "timm",
                "imagenet",
                224,
                EvalTransform(),
            ),  # older files
            (
                prepared(crop_pct=0.9, test_input_size=[3, 256, 256], test_crop_pct=1.0)
                | {"architecture": "efficientnet_b0"},
                "timm",
                "imagenet",
                256,
                EvalTransform(0),
            ),
            (
                prepared(input_size=[3, 300, 300], crop_pct=0.904, interpolation="bilinear", crop_mode="squash"),
                "timm_tf",
                "imagenet",
                300,
                EvalTransform(31, "bilinear", "squash"),
            ),
        ]
    ),
)
def test_what_it_states_is_no_guess(
    config: dict[str, Any], origin: str, preprocessing: str, side: int, transform: EvalTransform, tmp_path: Path
) -> None:
    weights = read(tmp_path, config).weights
    assert (weights.origin, weights.model.preprocessing) == (origin, preprocessing)
    assert (resolve_architecture(weights.model).resolution, weights.transform) == (side, transform)
    assert weights.guesses == ("class names of ImageNet",)


@pytest.mark.slow
def test_the_settings_of_the_user_count_more(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"origin": "timm", "preprocessing": "advprop", "resolution": 300, "crop_pad": 0}
    weights = read(tmp_path, CONFIG, **settings).weights
    assert (weights.origin, weights.model.preprocessing, weights.transform) == ("timm", "advprop", EvalTransform(0))


@pytest.mark.parametrize("names", with_slow_rest([["ant", "bee", "cat"], {"0": "ant", "1": "bee", "2": "cat"}]))
def test_its_classes_and_their_names_are_those_of_the_model(names: Any, tmp_path: Path) -> None:
    file = read(tmp_path, CONFIG | {"num_classes": 3, "label_names": names}, classes=3)
    assert (file.class_names, file.class_source) == (("ant", "bee", "cat"), CLASSES_GIVEN)
    assert file.weights.guesses == ()


def test_names_of_another_number_of_classes_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = read(tmp_path, CONFIG | {"num_classes": 3, "label_names": ["ant", "bee"]}, classes=3)
    assert (file.class_names, file.class_source) == (("0", "1", "2"), "unknown")
    assert "config.json has 2 names, the weights have 3 classes" in caplog.text


@pytest.mark.parametrize(
    ("config", "message"),
    with_slow_rest(
        [
            (CONFIG | {"architecture": "efficientnet_b3"}, "is of efficientnet_b3, the tensors are of efficientnet_b0"),
            ("{", "config.json is no JSON, and is not used"),
            ({"model_type": "efficientnet"}, ""),
            ("[]", ""),
        ]
    ),
)
def test_one_of_another_network_or_tool_is_not_used(
    config: object, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=UNTOLD):
        read(tmp_path, config)
    assert message in caplog.text


@pytest.mark.slow
def test_one_beside_a_file_of_another_name_may_be_of_another_network(tmp_path: Path) -> None:
    weights = read(tmp_path, CONFIG, file="efficientnet_b0_ra-3dd342df.safetensors").weights
    assert weights.origin == "timm"


@pytest.mark.parametrize(
    ("config", "message"),
    with_slow_rest(
        [
            (
                prepared(mean=[0.7, 0.5, 0.5]),
                r"pixels of the mean \[0.7, 0.5, 0.5\] .* published.preprocessing=imagenet",
            ),
            (
                prepared(crop_mode="border"),
                "effnet has no crop_mode border: set published.crop_mode to center or squash",
            ),
            (prepared(interpolation="lanczos"), "effnet has no interpolation lanczos"),
            (prepared(input_size=[3, 224, 320]), r"are no squares: set published\.resolution"),
            (CONFIG | {"model_args": {"act_layer": "relu", "drop_rate": 0.2}}, "was made with act_layer, with which"),
            (CONFIG | {"global_pool": "max"}, "was made with global_pool, with which it computes other things"),
        ]
    ),
)
def test_what_the_network_here_would_do_otherwise_is_refused(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, config)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("model.safetensors", "config.json"), "is a folder: give the file, as .*/model.safetensors$"),
        (("saved_model.pb", "w.bin"), "is a folder of TensorFlow, which is not read: timm has Google's weights"),
        (("README.md",), "is a folder, in which no file has the suffix of weights$"),
    ],
)
def test_a_folder_in_place_of_a_file_is_said(files: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=said):
        published_file.read(schema.Published(path=str(tmp_path)))
