"""What timm and torchvision make of three real photographs: their pixels, and the logits of made-up weights.

The photographs are those that Python packages carry (``models/networks/packaged.py``), the weights made up by
``tensors``, and the transforms those with which each library evaluates the file. ``photographs.json`` holds for
each file means of the pixels and the first logits. With both libraries importable it is made again by ``PYTHONPATH=.
python tests/support/made_photographs.py > tests/support/photographs.json``; neither is needed to run the tests.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import made_published
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from models.networks import packaged

REFERENCE = Path(__file__).parent / "photographs.json"
GRID = 4  # rows and columns of the means of an image
SHOWN = 8  # logits of each photograph that are kept
PHOTOGRAPHS = tuple(packaged.PHOTOGRAPHS)


@dataclass(frozen=True)
class File:
    """A published file, and how its library builds the network and calls its transforms.

    Attributes:
        origin: As ``published.origin``.
        created: Name of the network in timm, or of its weights in torchvision.
        mean, deviation: Of the normalization, of pixels between 0 and 1.
    """

    origin: str
    variant: str
    created: str
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)


HALVES = (0.5, 0.5, 0.5)
FILES: Mapping[str, File] = {
    "efficientnet_b0_ra-3dd342df.pth": File("timm", "efficientnet_b0", "efficientnet_b0.ra_in1k"),
    "efficientnet_b0.ra4_e3600_r224_in1k.safetensors": File(
        "timm", "efficientnet_b0", "efficientnet_b0.ra4_e3600_r224_in1k", HALVES, HALVES
    ),
    "efficientnet_b3_ra2-cf984f9c.pth": File("timm", "efficientnet_b3", "efficientnet_b3.ra2_in1k"),
    "efficientnet_b5.sw_in12k_ft_in1k.safetensors": File("timm", "efficientnet_b5", "efficientnet_b5.sw_in12k_ft_in1k"),
    "tf_efficientnet_b0_aa-827b6e33.pth": File("timm_tf", "efficientnet_b0", "tf_efficientnet_b0.aa_in1k"),
    "tf_efficientnet_b2_ap-2f8e7636.pth": File(
        "timm_tf", "efficientnet_b2", "tf_efficientnet_b2.ap_in1k", HALVES, HALVES
    ),
    "tf_efficientnet_lite3-b733e338.pth": File(
        "timm_tf", "efficientnet_lite3", "tf_efficientnet_lite3.in1k", HALVES, HALVES
    ),
    "efficientnet_b0_rwightman-7f5810bc.pth": File("torchvision", "efficientnet_b0", "IMAGENET1K_V1"),
    "efficientnet_b1-c27df63c.pth": File("torchvision", "efficientnet_b1", "IMAGENET1K_V2"),
    "efficientnet_b4_rwightman-23ab8bcd.pth": File("torchvision", "efficientnet_b4", "IMAGENET1K_V1"),
}


def photograph(name: str) -> Image.Image:
    return Image.open(io.BytesIO(packaged.photograph(name))).convert("RGB")


# Least gains of batch norm: with less, all photographs have nearly the same logits, with more, rounding is amplified.
GAINS = {
    "efficientnet_b0": 0.72,
    "efficientnet_b1": 0.68,
    "efficientnet_b2": 0.72,
    "efficientnet_b3": 0.7,
    "efficientnet_b4": 0.6,
    "efficientnet_b5": 0.62,
    "efficientnet_lite3": 0.66,
}


def tensors(variant: str, shapes: Iterable[tuple[str, list[int]]]) -> dict[str, Tensor]:
    """The numbers of ``made_published`` with gains of batch norm at which the answer depends on the image.

    With the gains of ``made_published``, on average 0.25, every block halves what reaches it, and all images have the
    same logits to seven digits.
    """
    made = made_published.tensors(shapes)
    for name, values in made.items():
        if values.dim() == 1 and name.endswith("weight"):
            made[name] = GAINS[variant] + 0.2 * values
        elif values.dim() == 1 and name.endswith(("bias", "running_mean")):
            made[name] = 0.2 * values
    return made


def means(pixels: NDArray[np.uint8]) -> list[list[list[float]]]:
    """Means of ``GRID`` x ``GRID`` parts of an image ``[side, side, 3]``, by row, column and channel."""
    rows = np.array_split(np.asarray(pixels, np.float64), GRID, axis=0)
    parts = [[part.mean((0, 1)) for part in np.array_split(row, GRID, axis=1)] for row in rows]
    return [[[round(float(value), 3) for value in part] for part in row] for row in parts]


def main() -> None:
    recorded: dict[str, Any] = {}
    for name, file in FILES.items():
        network, transform = _timm(file) if file.origin.startswith("timm") else _torchvision(file)
        network.load_state_dict(tensors(file.variant, made_published.shapes(network.state_dict())))
        inputs = torch.stack([transform(photograph(one)) for one in PHOTOGRAPHS])
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (file.mean, file.deviation))
        pixels = (255 * (inputs * deviation + mean)).round().to(torch.uint8)
        with torch.inference_mode():
            logits: Tensor = network.eval()(inputs)
        recorded[name] = {
            "side": inputs.shape[-1],
            "means": [means(one.permute(1, 2, 0).numpy()) for one in pixels],
            "logits": [[round(float(value), 6) for value in row[:SHOWN]] for row in logits],
        }
    print(json.dumps(recorded))


def _timm(file: File) -> tuple[nn.Module, Any]:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    network = timm.create_model(file.created)
    config = resolve_model_data_config(network, use_test_size=True)
    transform = create_transform(**config)
    normalize = transform.transforms[-1]
    for theirs, ours in ((normalize.mean, file.mean), (normalize.std, file.deviation)):
        assert np.allclose(theirs, ours), (file.created, theirs)
    return network, transform


def _torchvision(file: File) -> tuple[nn.Module, Any]:
    from torchvision import models

    weights = models.get_model_weights(file.variant)[file.created]
    return models.get_model(file.variant), weights.transforms()


if __name__ == "__main__":
    main()
