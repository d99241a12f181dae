"""CIFAR-10 and CIFAR-100 from their Python archives, or as folders of images.

The archives contain raw pixels, which are served as PNG: lossless, and encoded when an image is read. The pickles
around the pixels are read as plain data (``pickles.py``).

Source of the layout: cs.toronto.edu/~kriz/cifar.html; 32 x 32 images as 3,072 bytes, all red, all green, all blue.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from conf import schema
from infra.errors import ConfigError, DataError
from models.data.sources import listing
from models.data.sources.files.archive import Files
from models.data.sources.listing import TRAIN, VAL, DataSet, Listing, Source
from models.data.sources.published import class_folders, pickles

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Layout:
    """Layout of the archive of one of the two data sets."""

    folder: str
    batches: dict[str, int]  # file -> part
    labels: str  # key of the labels in a batch
    meta: str  # file with the class names
    names: str  # key of the class names in that file


CIFAR10 = Layout(
    "cifar-10-batches-py",
    {**{f"data_batch_{number}": TRAIN for number in range(1, 6)}, "test_batch": VAL},
    "labels",
    "batches.meta",
    "label_names",
)
CIFAR100 = Layout("cifar-100-python", {"train": TRAIN, "test": VAL}, "fine_labels", "meta", "fine_label_names")


class PngReader:
    """Maps an index to a PNG of the raw pixels that ``pixels`` returns."""

    def __init__(self, pixels: Callable[[int], bytes]) -> None:
        self.pixels = pixels

    def __call__(self, index: int) -> bytes:
        """Returns the encoded image; raises as the reader of the pixels."""
        planes = np.frombuffer(self.pixels(index), np.uint8).reshape(3, SIDE, SIDE)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def open_cifar10(data: schema.Data, data_set: DataSet) -> Source:
    """Opens CIFAR-10; raises as ``open_cifar``."""
    return open_cifar(data, data_set, CIFAR10)


def open_cifar100(data: schema.Data, data_set: DataSet) -> Source:
    """Opens CIFAR-100 with its 100 fine labels; raises as ``open_cifar``."""
    return open_cifar(data, data_set, CIFAR100)


def open_cifar(data: schema.Data, data_set: DataSet, layout: Layout) -> Source:
    """Opens the Python archive or its extracted folder, or ``{train,test}/CLASS/IMAGE``.

    Raises:
        ConfigError: None of them exists.
        DataError: The counts differ from the official ones, or a batch is not plain data.
    """
    files = listing.open_files(data, data_set)
    batches = files.folder(layout.folder) or {name: row for row, name in enumerate(files.names)}
    if layout.meta not in batches:
        splits = class_folders.split_folders(files, ("train", "test"), data_set)
        return listing.check_listing(data, splits, data_set)
    classes = _read(files, batches[layout.meta])[layout.names]
    if len(classes) != data_set.classes:
        raise DataError(f"{files.root}: {layout.meta} has {len(classes)} classes, {data_set.classes} are expected")
    return _from_batches(data, data_set, files, batches, layout, [str(name) for name in classes])


def _read(files: Files, row: int) -> dict[str, Any]:
    return pickles.read(files.read(row), f"{files.root}:{files.names[row]}")


def _from_batches(
    data: schema.Data, data_set: DataSet, files: Files, batches: dict[str, int], layout: Layout, classes: list[str]
) -> Source:
    """Represents every image as a separate file in ``Files``: a range of its batch."""
    rows, offsets, names, labels, split = [], [], [], [], []
    pixels = hashlib.sha256()
    for batch, part in layout.batches.items():
        if (row := batches.get(batch)) is None:
            continue
        content = files.read(row)
        fields = pickles.read(content, f"{files.root}:{batch}")
        start, count = _locate_pixels(fields, layout, len(classes), f"{files.root}:{batch}")
        pixels.update(content[start : start + count * IMAGE_BYTES])
        official = fields.get("filenames", [""] * count)
        rows += [row] * count
        offsets += [int(files.offsets[row]) + start + number * IMAGE_BYTES for number in range(count)]
        names += [f"{batch}/{number:05d}_{official[number]}" for number in range(count)]
        labels += fields[layout.labels]
        split += [part] * count
    if not rows:
        raise ConfigError(f"{files.root} has none of {', '.join(layout.batches)}")
    sizes = np.full(len(rows), IMAGE_BYTES, np.int64)
    ranges = dataclasses.replace(
        files,
        names=[files.names[row] for row in rows],
        container=files.container[rows],
        offsets=np.array(offsets, np.int64),
        sizes=sizes,
    )
    entries = Listing(ranges, classes, list(range(len(rows))), names, labels, split)
    source = listing.check_listing(data, entries, data_set)
    return _as_png(source, pixels.digest())


def _as_png(source: Source, pixels: bytes) -> Source:
    """Returns the source with PNG images, whose sizes are unknown until they are encoded.

    Args:
        source: Source of raw pixels.
        pixels: Digest of all pixels, which identifies the images in place of their sizes.
    """
    sizes = np.zeros(len(source.labels), np.int64)
    digest = listing.digest_of(source.classes, source.labels, source.split, source.names, sizes, pixels)
    return dataclasses.replace(source, sizes=sizes, read=PngReader(source.read), digest=digest)


def _locate_pixels(batch: dict[str, Any], layout: Layout, classes: int, where: str) -> tuple[int, int]:
    """Returns the position of the pixels of a batch in its file, and the number of images."""
    pixels, labels = batch.get("data"), batch.get(layout.labels)
    if not isinstance(pixels, pickles.Array) or not isinstance(labels, list):
        raise DataError(f"{where} has no data or no {layout.labels}; its keys: {', '.join(sorted(batch))}")
    if pixels.shape != (len(labels), IMAGE_BYTES) or len(batch.get("filenames", labels)) != len(labels):
        raise DataError(f"{where}: pixels of shape {pixels.shape}, {len(labels)} labels; expected [N, {IMAGE_BYTES}]")
    if not all(isinstance(label, int) and 0 <= label < classes for label in labels):
        raise DataError(f"{where}: labels outside 0 to {classes - 1}")
    return pixels.start, len(labels)
