"""Draws what a public ImageNet network sees in photographs: its most probable classes, and the map of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from conf.data_set import EvalTransform
from conf.schema import Model
from models.data.loading import selection
from models.experiments import activation_maps
from models.experiments.activation_maps import Pixels
from models.experiments.gallery import REPORT_PX, base64_png
from models.networks import weights
from models.networks.efficientnet.preprocessing import Normalize
from models.results import Photograph, PhotographMap

SHOWN = 3  # classes of a photograph


@dataclass(frozen=True)
class SeenPhotographs:
    """Answers of one network to N photographs.

    Attributes:
        labels: ``[N][SHOWN]`` most probable classes, the first first.
        probabilities: ``[N][SHOWN]`` their softmax probabilities.
        inputs: ``[N, R, R, 3]`` network inputs before normalization.
        overlays: ``[N, R, R, 3]`` activation maps of the most probable class over the inputs.
    """

    labels: list[list[int]]
    probabilities: list[list[float]]
    inputs: Pixels
    overlays: Pixels


def classify_photographs(
    model: Model,
    weights_uri: str,
    weights_sha256: str,
    photographs: Mapping[str, bytes],
    classes: int,
    transform: EvalTransform,
) -> SeenPhotographs:
    """Classifies photographs, and maps the evidence for the most probable class of each.

    Args:
        model: The network.
        weights_uri: Address of its safetensors file.
        weights_sha256: Expected digest of that file.
        photographs: Encoded images by name.
        classes: Number of classes of the network.
        transform: Transform of the network's evaluation.

    Raises:
        ArtifactError: the weights are damaged, or belong to another network.
        DataError: a photograph cannot be used.
    """
    network = weights.build_trained(model, classes, weights_uri, weights_sha256)
    inputs = selection.decode_squares(photographs, network.resolution, transform)
    images = Normalize(torch.device("cpu"))(torch.from_numpy(inputs))
    explanation = activation_maps.explain(network, images)
    best = explanation.probabilities.topk(min(SHOWN, classes))
    overlays = activation_maps.overlay_maps(inputs, explanation.maps)
    return SeenPhotographs(best.indices.tolist(), best.values.tolist(), inputs, overlays)


def report_photographs(names: Sequence[str], inputs: Pixels) -> tuple[Photograph, ...]:
    """The photographs as small PNGs, for the report."""
    return tuple(
        Photograph(name=name, png=base64_png(pixels, REPORT_PX)) for name, pixels in zip(names, inputs, strict=True)
    )


def report_maps(
    network: str, names: Sequence[str], seen: SeenPhotographs, classes: Sequence[str]
) -> tuple[PhotographMap, ...]:
    """The maps of one network as small PNGs with the names of the classes, for the report."""
    return tuple(
        PhotographMap(
            photograph=name,
            network=network,
            classes=tuple(classes[label] for label in seen.labels[i]),
            probabilities=tuple(seen.probabilities[i]),
            png=base64_png(seen.overlays[i], REPORT_PX),
        )
        for i, name in enumerate(names)
    )
