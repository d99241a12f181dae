import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conf import schema
from conf.data_set import EvalTransform
from infra.errors import ArtifactError
from models.networks import export
from models.networks.build import build_model
from models.networks.description import config_json, read_transform
from models.networks.efficientnet.network import EfficientNet

TINY = schema.Model(width=0.25, depth=0.25, resolution=0.15)
NAMES = ["cat", "dog", "größer"]


@pytest.fixture
def network() -> EfficientNet:
    torch.manual_seed(0)
    made = build_model(TINY, len(NAMES))
    with torch.no_grad():
        made(torch.randn(8, 3, 32, 32))  # in training mode: BN statistics away from 0 and 1
    return made


@pytest.fixture
def config() -> dict:
    text = config_json(
        TINY, resolution=34, class_names=NAMES, mean=[0.5] * 3, std=[0.25] * 3, transform=EvalTransform(8)
    )
    return json.loads(text)


def test_serving_leaves_the_training_network_as_it_was(network):
    served = export.serving_module(network)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert not served.training
    assert not any(p.requires_grad for p in served.parameters())


def test_what_is_served_has_no_batch_norm_and_the_networks_logits_up_to_rounding(network):
    served, images = export.serving_module(network), export.example(34)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in served.modules())
    plain = export.logits(copy.deepcopy(network).eval(), images)
    np.testing.assert_allclose(export.logits(served, images), plain, rtol=1e-5, atol=1e-5 * np.abs(plain).max())


def test_a_served_image_gets_the_same_logits_whoever_stands_beside_it(network):
    served, images = export.serving_module(network), export.example(34)
    both = export.logits(served, images)
    assert both.shape == (2, 3)
    assert both.dtype == np.float32
    np.testing.assert_allclose(export.logits(served, images[:1]), both[:1], atol=1e-6)
    assert np.array_equal(export.logits(served, images), both)


def test_the_example_is_two_different_images_and_always_the_same():
    images = export.example(34)
    assert images.shape == (2, 3, 34, 34)
    assert images.dtype == np.float32
    assert not np.array_equal(images[0], images[1])
    assert np.array_equal(images, export.example(34))


def test_weights_and_description_rebuild_the_same_network(network, config, tmp_path: Path):
    sha256 = export.save_weights(network.state_dict(), tmp_path / "w.safetensors")
    assert len(sha256) == 64
    again = export.load_network(tmp_path / "w.safetensors", config)
    assert not again.training
    images = export.example(34)
    assert np.array_equal(export.logits(again, images), export.logits(copy.deepcopy(network).eval(), images))


def test_equal_weights_give_equal_bytes(network):
    views = {name: t.clone().unsqueeze(0)[0] for name, t in reversed(network.state_dict().items())}
    assert export.weights_bytes(views) == export.weights_bytes(network.state_dict())


def test_weights_that_share_memory_can_be_saved():
    shared = torch.ones(4)
    assert export.weights_bytes({"a": shared, "b": shared[:2], "c": shared.reshape(2, 2).T})


def test_the_description_names_everything_that_a_reader_needs(config):
    assert config["format"] == 1
    assert config["model"]["name"] == "efficientnet_b0"
    assert (config["model"]["width"], config["model"]["depth"], config["model"]["resolution"]) == (0.25, 0.25, 0.15)
    assert config["classes"] == 3
    assert config["class_names"] == NAMES
    assert config["input"] == {"resolution": 34, "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pad": 8}
    unusual = EvalTransform(8, "bilinear", "squash")
    text = config_json(TINY, resolution=34, class_names=NAMES, mean=[0.5] * 3, std=[0.25] * 3, transform=unusual)
    assert read_transform(json.loads(text)) == unusual
    assert read_transform(config) == EvalTransform(8)


def test_half_a_file_never_becomes_a_network(network, config, tmp_path: Path):
    data = export.weights_bytes(network.state_dict())
    (tmp_path / "w.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="damaged"):
        export.load_network(tmp_path / "w.safetensors", config)


@pytest.mark.parametrize("position", [0, 4, 60])
def test_a_flipped_byte_in_the_header_never_becomes_a_network(network, config, tmp_path: Path, position: int):
    # In the tensors themselves only the registry's sha256 sees it.
    data = bytearray(export.weights_bytes(network.state_dict()))
    data[position] ^= 0xFF
    (tmp_path / "w.safetensors").write_bytes(bytes(data))
    with pytest.raises(ArtifactError):
        export.load_network(tmp_path / "w.safetensors", config)


def test_weights_of_another_network_are_refused_with_the_reason(network, config, tmp_path: Path):
    export.save_weights(network.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match="does not fit"):
        export.load_network(tmp_path / "w.safetensors", {**config, "classes": 4})


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": 2},
        {"model": {"name": "efficientnet_b99"}},
        {"model": {"_target_": "os.system"}},
        {"model": {"width": -1}},
        {"classes": "many"},
    ],
)
def test_a_description_that_is_not_ours_is_refused(network, config, tmp_path: Path, wrong: dict):
    export.save_weights(network.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError):
        export.load_network(tmp_path / "w.safetensors", {**config, **wrong})


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("write", [torch.save, lambda evil, path: path.write_bytes(pickle.dumps(evil))])
def test_a_pickle_in_place_of_weights_is_refused_and_not_run(config, tmp_path: Path, write):
    marker = tmp_path / "marker"
    write(Touch(marker), tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match="damaged"):
        export.load_network(tmp_path / "w.safetensors", config)
    assert not marker.exists()


def test_any_module_can_be_served():
    assert isinstance(export.serving_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), nn.Module)
