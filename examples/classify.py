"""Classifies an image file with a registered model: ``python examples/classify.py efficientnet-b0@champion IMAGE``.

Run ``eval "$(effnet env)"`` first, which connects the shell to the services.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from infra.tracking import registry
from models.data.loading import crops, decode
from models.data.shards.images import open_image
from models.networks import export


def classify(ref: str, image: Path, folder: Path) -> list[tuple[str, float]]:
    """The five most probable classes of an image with their probabilities; the weights are stored in ``folder``."""
    weights, config = registry.fetch_weights(ref, folder)
    network = export.load_network(weights, config)
    given, data = config["input"], image.read_bytes()
    side = int(given["resolution"])
    width, height = open_image(data).size
    boxes = crops.eval_boxes(np.array([width]), np.array([height]), side, given["crop_pad"])
    pixels = np.empty((1, side, side, 3), np.uint8)
    decode.fill(pixels, [data], boxes, np.array([False]))
    normalised = (torch.from_numpy(pixels) / 255 - torch.tensor(given["mean"])) / torch.tensor(given["std"])
    with torch.inference_mode():
        probabilities = network(normalised.permute(0, 3, 1, 2)).softmax(dim=1)[0]
    best = probabilities.topk(min(5, len(probabilities)))
    return [(config["class_names"][i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


if __name__ == "__main__":
    for name, probability in classify(sys.argv[1], Path(sys.argv[2]), Path("runs/weights") / sys.argv[1]):
        print(f"{probability:6.1%}  {name}")
