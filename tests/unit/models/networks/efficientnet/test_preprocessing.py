"""Normalized pixels are those of torch's subtraction and division, bit for bit, however they are computed."""

from collections.abc import Iterator

import pytest
import torch

from models.networks import native
from models.networks.efficientnet.preprocessing import MEAN_RGB, STDDEV_RGB, Normalize


@pytest.fixture(params=[16, 8, 4, 1, None], ids=["16 lanes", "8 lanes", "4 lanes", "1 lane", "torch"])
def normalize(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Normalize]:
    """The module with vectors of one width, and without the C code."""
    layers = native.load()
    if request.param is None:
        monkeypatch.setattr(native, "load", lambda: None)
    elif layers is None:
        pytest.skip("the C code was not built")
    else:
        layers.use_lanes(request.param)
    yield Normalize(torch.device("cpu"))
    if layers is not None:
        layers.use_lanes(16)


@pytest.mark.parametrize("shape", [(256, 1, 3, 3), (1, 1, 1, 3), (3, 5, 7, 3), (2, 300, 224, 3), (0, 8, 8, 3)], ids=str)
def test_pixels_are_normalized_bit_for_bit_as_by_subtraction_and_division(
    normalize: Normalize, shape: tuple[int, ...]
) -> None:
    values = torch.arange(torch.Size(shape).numel()).div(3, rounding_mode="floor")  # all 256 of each channel
    images = (values % 256).to(torch.uint8).view(shape)
    expected = (images.permute(0, 3, 1, 2).float() - torch.tensor(MEAN_RGB).view(3, 1, 1)) / torch.tensor(
        STDDEV_RGB
    ).view(3, 1, 1)
    actual = normalize(images)
    assert torch.equal(actual, expected)
    assert actual.is_contiguous(memory_format=torch.channels_last)


def test_images_that_are_not_contiguous_are_normalized(normalize: Normalize) -> None:
    images = torch.randint(0, 256, (2, 8, 10, 3), dtype=torch.uint8)
    assert torch.equal(normalize(images[:, :, 1:9]), normalize(images)[..., 1:9])
