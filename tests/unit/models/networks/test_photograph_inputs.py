"""Real photographs through the evaluation of imported weights, against what timm and torchvision made of them.

``tests/support/made_photographs.py`` recorded their pixels and logits, for a file of each kind in the table of
docs/weights.md: other sides, crops, interpolations, and normalizations.
"""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import made_photographs
import made_published
import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet as Lukemelas
from made_photographs import FILES, PHOTOGRAPHS, SHOWN
from matrix import with_slow_rest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from conf import schema
from models.data.loading import selection
from models.networks import packaged, pretrained
from models.networks.build import build_model
from models.networks.efficientnet.preprocessing import Normalize
from models.networks.key_maps import TIMM, TORCHVISION
from models.networks.pretrained import PretrainedWeights

RECORDED: dict[str, Any] = json.loads(made_photographs.REFERENCE.read_text())
ENCODED = {name: packaged.photograph(name) for name in PHOTOGRAPHS}
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
BIG = {"efficientnet_b4", "efficientnet_b5"}  # seconds for an image
NAMES = with_slow_rest(sorted(FILES, key=lambda name: FILES[name].variant in BIG))


@functools.cache
def converted(file: str) -> PretrainedWeights:
    """Made-up weights under the library's names, imported under the name of the file."""
    facts = FILES[file]
    key_map = TORCHVISION if facts.origin == "torchvision" else TIMM
    names = pretrained._expected_tensors(key_map, schema.Model(name=facts.variant), 1000).values()
    tensors = made_photographs.tensors(facts.variant, ((key, list(shape)) for key, shape in names))
    return pretrained.convert(tensors, schema.Published(), file)


@functools.cache
def network_of(file: str) -> nn.Module:
    return build(converted(file))


def build(weights: PretrainedWeights) -> nn.Module:
    network = build_model(weights.model, weights.classes, device="meta").eval()  # without drawing initial weights
    network.load_state_dict(weights.state_dict, assign=True)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def answer(network: nn.Module, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(Normalize(torch.device("cpu"))(pixels))[:, :SHOWN]  # type: ignore[no-any-return]


def resized_then_cropped(weights: PretrainedWeights, side: int) -> Tensor:
    """What timm's and torchvision's transforms do with a picture of Pillow."""
    transform, squares = weights.transform, []
    for name in PHOTOGRAPHS:
        picture = made_photographs.photograph(name)
        short, whole = min(picture.size), side + transform.crop_pad
        sides = [whole, whole] if transform.crop_mode == "squash" else [int(whole * n / short) for n in picture.size]
        picture = picture.resize((sides[0], sides[1]), FILTERS[transform.interpolation])
        left, top = (round((n - side) / 2) for n in picture.size)
        squares.append(np.asarray(picture.crop((left, top, left + side, top + side))))
    return torch.from_numpy(np.stack(squares))


def grid(pixels: Tensor) -> NDArray[np.float64]:
    return np.array([made_photographs.means(one) for one in pixels.numpy()])


@pytest.mark.slow
@pytest.mark.parametrize("file", NAMES)
def test_logits_are_the_library_s_on_its_own_pixels(file: str) -> None:
    recorded, weights = RECORDED[file], converted(file)
    network = network_of(file)
    assert network.resolution == recorded["side"]
    pixels = resized_then_cropped(weights, recorded["side"])
    np.testing.assert_allclose(grid(pixels), recorded["means"], atol=0.01)  # the pixels that the library had
    expected = torch.tensor(recorded["logits"])
    between = float((expected[0] - expected[1]).norm() / expected.norm())
    assert between > 0.01, "the logits depend on the photograph"
    # timm's 0.5 and 0.5 for Lite are 127.5 and 127.5 of 255, Google's own are 127 and 128.
    tolerance = 0.1 if weights.model.preprocessing == "lite" else 1e-4
    torch.testing.assert_close(answer(network, pixels), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("file", NAMES)
def test_an_evaluation_here_sees_what_the_library_sees(file: str) -> None:
    """One resize of the crop, where libraries resize the picture and then crop: the same pixels but for a shift."""
    recorded, weights = RECORDED[file], converted(file)
    wide = replace(weights.transform, crop_pad=weights.transform.crop_pad + recorded["side"] // 16)
    network, expected = network_of(file), torch.tensor(recorded["logits"])
    differences, distances = [], []
    for transform in (weights.transform, wide):
        pixels = torch.from_numpy(selection.decode_squares(ENCODED, recorded["side"], transform))
        differences.append(float(np.abs(grid(pixels) - recorded["means"]).mean()))
        if weights.model.preprocessing != "lite":  # whose logits differ more by the normalization, see above
            distances.append(float((answer(network, pixels) - expected).norm() / expected.norm()))
    assert differences[0] < 0.6 < 3 < differences[1]  # levels of 255
    if distances:
        assert distances[0] < min(0.02, 0.7 * distances[1]), distances


@pytest.mark.slow
def test_lukemelas_weights_answer_as_their_own_code_on_the_photographs() -> None:
    theirs = Lukemelas.from_name("efficientnet-b0").eval()
    tensors = made_photographs.tensors("efficientnet_b0", made_published.shapes(theirs.state_dict()))
    theirs.load_state_dict(tensors)
    weights = pretrained.convert(tensors, schema.Published(), "efficientnet-b0-355c32eb.pth")
    pixels = resized_then_cropped(weights, 224)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        expected = theirs((pixels.permute(0, 3, 1, 2) / 255 - mean) / deviation)[:, :SHOWN]
    tolerance = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(answer(build(weights), pixels), expected, rtol=0, atol=tolerance)
