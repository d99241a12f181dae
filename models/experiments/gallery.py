"""Renders activation maps of several networks on the same images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from conf.schema import Model
from models.data.loading.selection import SampleSelection
from models.experiments import activation_maps
from models.experiments.activation_maps import Pixels
from models.networks import weights
from models.networks.build import build_model
from models.networks.complexity import count_model
from models.networks.efficientnet.preprocessing import Normalize

GAP_PX = 4  # gap between the pictures of a sheet


@dataclass(frozen=True)
class GalleryImages:
    """Maps of the true class for all images, by one network.

    Attributes:
        method: Either ``cam`` or ``grad-cam``.
        params: Number of parameters of the network.
        multiply_adds: Multiply-adds for one image at its resolution.
        predictions: ``[N]`` predicted classes.
        probabilities: ``[N]`` probabilities of the predicted classes.
        inputs: ``[N, R, R, 3]`` network inputs before normalization.
        overlays: ``[N, R, R, 3]`` colored maps over the inputs.
    """

    method: str
    params: int
    multiply_adds: int
    predictions: list[int]
    probabilities: list[float]
    inputs: Pixels
    overlays: Pixels


def draw(
    model: Model, weights_uri: str, weights_sha256: str, selection: SampleSelection, classes: int, crop_pad: int
) -> GalleryImages:
    """Loads a network and maps the evidence for each image's true class.

    Args:
        model: Network name and its multipliers.
        weights_uri: Address of its safetensors file.
        weights_sha256: Expected digest of that file.
        selection: Images to map.
        classes: Number of classes of the data set.
        crop_pad: Padding of the evaluation crop, as in the data set's evaluation.

    Raises:
        ArtifactError: the weights are damaged, or belong to another network or number of classes.
    """
    network = build_model(model, classes)
    weights.load_weights(network, weights_uri, weights_sha256)
    side = network.resolution
    inputs = selection.squares(side, crop_pad)
    images = Normalize(torch.device("cpu"))(torch.from_numpy(inputs))
    explanation = activation_maps.explain(network, images, selection.labels)
    heat = activation_maps.upsample(explanation.maps, side)
    overlays = np.stack([activation_maps.overlay(image, values) for image, values in zip(inputs, heat, strict=True)])
    return GalleryImages(
        explanation.method,
        *count_model(network, side),
        explanation.predictions,
        explanation.probabilities,
        inputs,
        overlays,
    )


def png(pixels: Pixels, side: int | None = None) -> bytes:
    """Encodes ``[H, W, 3]`` as a PNG, resized to ``side`` x ``side`` if given."""
    image = Image.fromarray(pixels)
    if side is not None and image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def sheet(columns: Sequence[Pixels], side: int) -> Pixels:
    """Arranges pictures as in Figure 7: one row per image, one column per entry of ``columns`` (``[N, R, R, 3]``)."""
    rows, step = len(columns[0]), side + GAP_PX
    canvas = Image.new("RGB", (len(columns) * step - GAP_PX, rows * step - GAP_PX), "white")
    for x, column in enumerate(columns):
        for y, pixels in enumerate(column):
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
            canvas.paste(picture, (x * step, y * step))
    return np.asarray(canvas)
