"""Classifies image files with a registered network: check, decode, crop, normalize, probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.data.loading import selection
from models.data.loading.decode import Pixels
from models.data.shards.image_check import check_image
from models.networks import export
from models.networks.description import read_transform


class Classifier:
    """A registered network with the evaluation transform of its ``config.json``; safe to call from several threads.

    Args:
        weights: File of the weights.
        config: Contents of ``config.json``.

    Raises:
        ArtifactError: The files are damaged or do not match.
    """

    def __init__(self, weights: Path, config: Mapping[str, Any]) -> None:
        module = export.serving_module(export.load_network(weights, config))
        # As the images are: a batch of B0 takes a third less CPU time than with both formats mixed.
        self.module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.class_names: list[str] = list(config["class_names"])
        self.side, self.transform = int(config["input"]["resolution"]), read_transform(config)
        self.mean, self.std = (torch.tensor(config["input"][key]).view(-1, 1, 1) for key in ("mean", "std"))

    def classify(self, data: bytes, count: int) -> list[tuple[str, float]]:
        """Returns the ``count`` most probable classes of a JPEG or PNG with their probabilities, the highest first.

        Raises:
            DataError: The image cannot be used; the message gives the reason.
        """
        return self.most_probable(self.probabilities([self.decode(data)])[0], count)

    def decode(self, data: bytes) -> Pixels:
        """Returns the evaluation crop ``[R, R, 3]`` of a JPEG or PNG.

        Raises:
            DataError: The image cannot be used; the message gives the reason.
        """
        info = check_image(data, "image", decode=True)
        size = np.array([info.width]), np.array([info.height])
        square: Pixels = selection.transform_images([data], *size, self.side, self.transform)[0]
        return square

    def probabilities(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Returns the probabilities of all classes, ``[N, classes]``, for the crops of N images."""
        normalized = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - self.mean) / self.std
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = self.module(normalized).softmax(dim=1).numpy()
        return probabilities

    def most_probable(self, probabilities: NDArray[np.float32], count: int) -> list[tuple[str, float]]:
        """Returns the names and probabilities of the ``count`` most probable classes, the highest first."""
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.class_names[label], float(probabilities[label])) for label in best]
