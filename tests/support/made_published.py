"""Made-up weights under public names: the same numbers wherever they are made, so that others' answers can be kept.

``published.json`` holds what timm and torchvision call the tensors of their B0, what they answer with these numbers,
a digest of the names and shapes of every other variant, and the part of an image that timm evaluates. With both
importable it is made again by ``python tests/support/made_published.py > tests/support/published.json``; neither is
needed to run the tests.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

REFERENCE = Path(__file__).parent / "published.json"
SIDE = 64
SHOWN = 8  # logits of each image that are kept
INPUTS = ((224, 32), (448, 0), (300, 31), (416, 21), (800, 33))  # side and margin of published weights
IMAGE_SIZES = ((500, 375), (375, 500), (1600, 1200), (227, 227), (60, 41), (2000, 130))  # width, height


def tensors(shapes: Iterable[tuple[str, list[int]]]) -> dict[str, Tensor]:
    """A state dict whose numbers follow from the names; of a size that keeps activations away from zero."""
    made = {}
    for name, shape in shapes:
        numbers = np.random.RandomState(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            made[name] = torch.zeros((), dtype=torch.int64)
            continue
        if name.endswith("running_var"):
            values = numbers.uniform(0.2, 1.5, shape)
        elif len(shape) == 1:
            values = numbers.uniform(-0.5, 1.0, shape)
        else:
            values = numbers.standard_normal(shape) * 1.5 / np.sqrt(np.prod(shape[1:]))
        made[name] = torch.from_numpy(np.asarray(values, np.float32))
    return made


def images() -> Tensor:
    """Two normalised images ``[2, 3, SIDE, SIDE]``."""
    return torch.from_numpy(np.random.RandomState(0).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32))


def shapes(state_dict: Mapping[str, Tensor]) -> list[tuple[str, list[int]]]:
    return [(name, list(tensor.shape)) for name, tensor in state_dict.items()]


def digest(named: Iterable[tuple[str, list[int]]]) -> str:
    return hashlib.sha256(json.dumps(sorted([name, list(shape)] for name, shape in named)).encode()).hexdigest()[:16]


def answer(network: torch.nn.Module) -> list[list[float]]:
    """What a network answers once it has the made-up numbers."""
    network.load_state_dict(tensors(shapes(network.state_dict())))
    with torch.no_grad():
        return [[round(float(v), 6) for v in row[:SHOWN]] for row in network.eval()(images())]


def evaluated_region(width: int, height: int, side: int, crop_pad: int, crop_mode: str) -> list[float]:
    """The part of an image that timm's evaluation makes the input: left, top, right, bottom in its pixels.

    Its transforms are applied to images whose values are the places of the pixels.
    """
    from PIL import Image
    from timm.data.transforms_factory import create_transform

    created = create_transform((3, side, side), crop_pct=side / (side + crop_pad), crop_mode=crop_mode)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    edges = []
    for places, axis in ((columns, 0), (rows, 1)):
        image = Image.fromarray(places)
        for transform in created.transforms[:2]:  # resize and crop; then come tensors
            image = transform(image)
        line = np.asarray(image).mean(axis=axis)
        low, high = side // 4, 3 * side // 4  # away from the edges, where the filter of the resize is cut
        step = (line[high] - line[low]) / (high - low)
        first = line[low] - (low + 0.5) * step + 0.5
        edges.append((first, first + side * step))
    (left, right), (top, bottom) = edges
    return [round(float(edge), 2) for edge in (left, top, right, bottom)]


def main() -> None:
    import timm
    from torchvision import models

    family = [f"efficientnet_b{phi}" for phi in range(8)]
    every = [*family, "efficientnet_b8", "efficientnet_l2", *(f"efficientnet_lite{size}" for size in range(5))]
    found: dict[str, Any] = {"names": {}, "answers": {}, "digests": {"timm": {}, "torchvision": {}}}
    for origin, network in (
        ("torchvision", models.efficientnet_b0()),
        ("timm", timm.create_model("efficientnet_b0")),
        ("timm_tf", timm.create_model("tf_efficientnet_b0")),
    ):
        found["names"][origin.removesuffix("_tf")] = shapes(network.state_dict())
        found["answers"][origin] = answer(network)
    with torch.device("meta"):
        for name in every:
            found["digests"]["timm"][name] = digest(shapes(timm.create_model(name).state_dict()))
        for name in family:
            found["digests"]["torchvision"][name] = digest(shapes(getattr(models, name)().state_dict()))
    found["regions"] = [
        [width, height, side, crop_pad, crop_mode, evaluated_region(width, height, side, crop_pad, crop_mode)]
        for crop_mode in ("center", "squash")
        for side, crop_pad in INPUTS
        for width, height in IMAGE_SIZES
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
