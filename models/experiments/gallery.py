"""The maps of several networks on the same images, as pictures."""

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

GAP_PX = 4  # between the pictures of a sheet


@dataclass(frozen=True)
class GalleryImages:
    """One network's maps of the true class of all images.

    Attributes:
        method: ``cam`` or ``grad-cam``.
        params: of the network.
        multiply_adds: for one image of its resolution.
        predictions: ``[N]`` classes.
        probabilities: ``[N]`` of the predictions.
        inputs: ``[N, R, R, 3]`` what the network was given.
        overlays: ``[N, R, R, 3]`` the maps in colours over them.
    """

    method: str
    params: int
    multiply_adds: int
    predictions: list[int]
    probabilities: list[float]
    inputs: Pixels
    overlays: Pixels


def draw(
    model: Model, weights_uri: str, weights_sha256: str, chosen: SampleSelection, classes: int, crop_pad: int
) -> GalleryImages:
    """Loads a network and maps what in each image speaks for the image's own class.

    Args:
        model: which network, with its multipliers.
        weights_uri: of its safetensors file.
        weights_sha256: what that must be.
        chosen: the images.
        classes: of the data set.
        crop_pad: as in the data set's evaluation.

    Raises:
        ArtifactError: the weights are damaged, or of another network or number of classes.
    """
    network = build_model(model, classes)
    weights.load_weights(network, weights_uri, weights_sha256)
    side = network.resolution
    inputs = chosen.squares(side, crop_pad)
    images = Normalize(torch.device("cpu"))(torch.from_numpy(inputs))
    found = activation_maps.explain(network, images, chosen.labels)
    heat = activation_maps.upsample(found.maps, side)
    overlays = np.stack([activation_maps.overlay(image, one) for image, one in zip(inputs, heat, strict=True)])
    return GalleryImages(
        found.method, *count_model(network, side), found.predictions, found.probabilities, inputs, overlays
    )


def png(pixels: Pixels, side: int | None = None) -> bytes:
    """``[H, W, 3]`` as a PNG, resized to ``side`` x ``side`` where given."""
    image = Image.fromarray(pixels)
    if side is not None and image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def sheet(columns: Sequence[Pixels], side: int) -> Pixels:
    """All pictures in one, as Figure 7: a row for each image, a column for each of ``columns`` (``[N, R, R, 3]``)."""
    rows, step = len(columns[0]), side + GAP_PX
    canvas = Image.new("RGB", (len(columns) * step - GAP_PX, rows * step - GAP_PX), "white")
    for x, column in enumerate(columns):
        for y, pixels in enumerate(column):
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
            canvas.paste(picture, (x * step, y * step))
    return np.asarray(canvas)
