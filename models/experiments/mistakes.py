"""What a network confuses on val, and pictures of its answers: inputs, predicted classes, activation maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from conf.schema import Augment, Model
from models.data.loading.selection import SampleSelection
from models.experiments import activation_maps
from models.experiments.gallery import png
from models.networks import weights
from models.networks.efficientnet.preprocessing import Normalize

PICTURE_PX = 96  # side of a picture


@dataclass(frozen=True)
class Confusion:
    """Images of class ``label`` that were classified as ``predicted``; ``total`` counts all images of the class."""

    label: int
    predicted: int
    images: int
    total: int


@dataclass(frozen=True)
class Answer:
    """An image with its true and its predicted class; PNG files of the network's input and of the activation map."""

    label: int
    predicted: int
    probability: float
    image: bytes
    map: bytes


def confusion_matrix(labels: NDArray[np.int32], predicted: NDArray[np.int32], classes: int) -> NDArray[np.int64]:
    """Counts the images by true and predicted class, ``[classes, classes]``.

    Args:
        labels: ``[images]``, true classes.
        predicted: ``[images]``, predicted classes.
        classes: Number of classes.
    """
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def most_confused(matrix: NDArray[np.int64], count: int) -> list[Confusion]:
    """Returns the ``count`` most frequent mistakes of a confusion matrix, the most frequent first."""
    mistakes = matrix.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = [divmod(int(position), len(matrix)) for position in order]
    return [Confusion(a, b, int(mistakes[a, b]), int(matrix[a].sum())) for a, b in pairs if mistakes[a, b]]


def surest_mistakes(
    labels: NDArray[np.int32], answers: NDArray[np.void], classes: Sequence[int], count: int
) -> list[int]:
    """Returns up to ``count`` wrongly classified images of each class, those with the highest probability first.

    Args:
        labels: ``[images]``, true classes.
        answers: ``[images]`` of ``per_image.ANSWER``.
        classes: Classes whose images are returned, in order.
        count: Images of a class.
    """
    ids: list[int] = []
    for label in classes:
        wrong = np.flatnonzero((labels == label) & (answers["label"] != label))
        ids += wrong[np.argsort(-answers["probability"][wrong], kind="stable")][:count].tolist()
    return ids


def draw_answers(
    model: Model, weights_uri: str, weights_sha256: str, selection: SampleSelection, classes: int, augment: Augment
) -> list[Answer]:
    """Runs a network on images and maps the evidence for its prediction.

    Args:
        model: Network name and its multipliers.
        weights_uri: Address of its safetensors file.
        weights_sha256: Expected digest of that file.
        selection: The images.
        classes: Number of classes of the data set.
        augment: Crop and interpolation of the network's evaluation.

    Raises:
        ArtifactError: the weights are damaged, or belong to another network or number of classes.
    """
    network = weights.build_trained(model, classes, weights_uri, weights_sha256)
    inputs = selection.squares(network.resolution, augment.evaluation)
    normalize = Normalize(torch.device("cpu"))
    answers = []
    for label, pixels in zip(selection.labels, inputs, strict=True):  # one by one: at 600 px all of them take gigabytes
        explanation = activation_maps.explain(network, normalize(torch.from_numpy(pixels[None])))
        predicted = explanation.probabilities[0].max(0)
        overlay = activation_maps.overlay_maps(pixels[None], explanation.maps)[0]
        pictures = png(pixels, PICTURE_PX), png(overlay, PICTURE_PX)
        answers.append(Answer(label, int(predicted.indices), float(predicted.values), *pictures))
    return answers
