"""Renders activation maps of several networks on the same images: for the report, and as files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from conf.schema import Augment, Model
from models.data.loading.selection import SampleSelection
from models.experiments import activation_maps
from models.experiments.activation_maps import Pixels
from models.networks import weights
from models.networks.build import compute_cost
from models.networks.efficientnet.preprocessing import Normalize
from models.results import GalleryImage, GalleryMap, GalleryModel, GalleryNetwork, GalleryResult, ScalingComparison
from models.statistics import compare_paired

GAP_PX = 4  # gap between the pictures of a sheet
REPORT_PX = 160  # image side in the report; the files have the resolution of their network
REPORT_BYTES = 2_800_000  # limit of all report images together, as base64


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
    model: Model, weights_uri: str, weights_sha256: str, selection: SampleSelection, classes: int, augment: Augment
) -> GalleryImages:
    """Loads a network and maps the evidence for each image's true class.

    Args:
        model: Network name and its multipliers.
        weights_uri: Address of its safetensors file.
        weights_sha256: Expected digest of that file.
        selection: Images to map.
        classes: Number of classes of the data set.
        augment: Crop and interpolation of the network's evaluation.

    Raises:
        ArtifactError: the weights are damaged, or belong to another network or number of classes.
    """
    network = weights.build_trained(model, classes, weights_uri, weights_sha256)
    inputs = selection.squares(network.resolution, augment.evaluation)
    images = Normalize(torch.device("cpu"))(torch.from_numpy(inputs))
    explanation = activation_maps.explain(network, images, selection.labels)
    predicted = explanation.probabilities.max(1)
    return GalleryImages(
        explanation.method,
        *compute_cost(model, classes)[:2],
        predicted.indices.tolist(),
        predicted.values.tolist(),
        inputs,
        activation_maps.overlay_maps(inputs, explanation.maps),
    )


def png(pixels: Pixels, side: int | None = None) -> bytes:
    """Encodes ``[H, W, 3]`` as a PNG, resized to ``side`` x ``side`` if given."""
    image = Image.fromarray(pixels)
    if side is not None and image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def base64_png(pixels: Pixels, side: int) -> str:
    """Encodes ``[H, W, 3]`` as a PNG of ``side`` x ``side`` for a page."""
    return base64.b64encode(png(pixels, side)).decode()


def sheet(columns: Sequence[Pixels], side: int) -> Pixels:
    """Arranges pictures as in Figure 7: one row per image, one column per entry of ``columns`` (``[N, R, R, 3]``)."""
    rows, step = len(columns[0]), side + GAP_PX
    canvas = Image.new("RGB", (len(columns) * step - GAP_PX, rows * step - GAP_PX), "white")
    for x, column in enumerate(columns):
        for y, pixels in enumerate(column):
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
            canvas.paste(picture, (x * step, y * step))
    return np.asarray(canvas)


def summarize(
    ids: Sequence[int],
    labels: Sequence[str],
    trained: Sequence[GalleryNetwork],
    drawn: Sequence[GalleryImages],
    classes: Sequence[str],
    limit: int = REPORT_BYTES,
) -> GalleryResult:
    """The gallery for the report, with images scaled down until all of them fit into ``limit``.

    Args:
        ids: Ids of the images.
        labels: Class name of each image.
        trained: The networks.
        drawn: The maps of each network.
        classes: Names of all classes of the data set.
        limit: Limit of all images together, in bytes of base64.
    """
    result = GalleryResult(
        models=tuple(_model(network, images) for network, images in zip(trained, drawn, strict=True)),
        found=sum(network.reused for network in trained),
    )
    side_px = REPORT_PX
    while True:
        images = tuple(
            GalleryImage(id=number, label=label, png=base64_png(pixels, side_px))
            for number, label, pixels in zip(ids, labels, drawn[0].inputs, strict=True)
        )
        maps = tuple(
            GalleryMap(
                image=number,
                model=network.name,
                prediction=classes[gallery.predictions[i]],
                probability=gallery.probabilities[i],
                png=base64_png(gallery.overlays[i], side_px),
            )
            for network, gallery in zip(trained, drawn, strict=True)
            for i, number in enumerate(ids)
        )
        pictures = [image.png for image in images] + [entry.png for entry in maps]
        if side_px <= 1 or sum(len(picture) for picture in pictures) <= limit:
            return replace(result, images=images, maps=maps)
        side_px = side_px * 4 // 5


def compare_methods(
    models: Sequence[GalleryModel], answers: Mapping[str, NDArray[np.bool_]]
) -> tuple[ScalingComparison, ...]:
    """Compares the network that is scaled in all dimensions with each that is scaled in one, on the images of val.

    Args:
        models: The networks with their counted sizes.
        answers: By name of the network, which images it classified correctly, ``[images]``.
    """
    compound = next((model for model in models if model.dimension == "compound"), None)
    if compound is None:
        return ()
    return tuple(
        ScalingComparison(
            network=compound.network,
            dimension=single.dimension,
            compound_top1=compound.top1,
            single_top1=single.top1,
            cost_ratio=single.multiply_adds / compound.multiply_adds,
            lead=compare_paired(answers[compound.name][None], answers[single.name][None])
            if {compound.name, single.name} <= answers.keys()
            else None,
        )
        for single in models
        if single.dimension in ("depth", "width", "resolution") and single.network == compound.network
    )


def _model(network: GalleryNetwork, images: GalleryImages) -> GalleryModel:
    return GalleryModel(
        name=network.name,
        dimension=network.dimension,
        network=network.model.name,
        method=images.method,
        params=images.params,
        multiply_adds=images.multiply_adds,
        resolution=images.inputs.shape[1],
        top1=network.top1,
        n_val=network.n_val,
        mlflow_url=network.mlflow_url,
        assumed=network.assumed,
    )


def save(
    folder: Path, ids: Sequence[int], trained: Sequence[GalleryNetwork], drawn: Sequence[GalleryImages]
) -> list[Path]:
    """Writes each map at its network's resolution, and one sheet of all maps: images as rows, networks as columns."""
    columns = [drawn[0].inputs, *(images.overlays for images in drawn)]
    pictures = {"gallery.png": png(sheet(columns, max(REPORT_PX, drawn[0].inputs.shape[1])))}
    for network, images in zip(trained, drawn, strict=True):
        stem = re.sub(r"[^A-Za-z0-9.]+", "-", network.name)
        for i, number in enumerate(ids):
            pictures[f"{number}-{stem}.png"] = png(images.overlays[i])
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in pictures]
