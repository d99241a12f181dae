"""Source of images: the listing of its images and the reader of their bytes.

Every opener (``imagenet.py``, ``cifar.py``, ...) builds a ``Listing``; ``check_listing`` verifies it against the
official counts of the data set's row in ``catalog.py`` and returns a ``Source``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from conf import schema
from conf.progress import Progress
from conf.text import list_some
from infra.errors import ConfigError, DataError
from models.data.sources.files import archive
from models.data.sources.files.archive import Files
from models.data.sources.files.container import locate
from models.data.sources.files.download import Download
from models.data.sources.files.image_format import is_image_name
from models.data.sources.unused import Unused

TRAIN, MINIVAL, VAL = 0, 1, 2  # values of Source.split
SPLITS = {TRAIN: "train", MINIVAL: "minival", VAL: "val"}
PARTS = {TRAIN: "train", MINIVAL: "validation", VAL: "val or test"}
MAX_IMAGE_BYTES = 50 * 2**20  # far above any photograph of these sets; larger files are excluded and listed
NAMED = 5  # maximum of missing items that a message names
_READS_AT_ONCE = 16
_BLOCK = 64  # images that a thread reads at a time, of few fewer: a million futures would take a gigabyte


@dataclass(frozen=True)
class Source:
    """An indexed set of N labelled, encoded images, in an order that is the same on every machine.

    Attributes:
        classes: Class names by label.
        labels: ``[N]`` int32.
        split: ``[N]`` int8. TRAIN (minival is split off, and val too if ``own_val`` is False), MINIVAL (an official
            validation part), VAL (the official val or test part).
        own_val: Whether the set has an official val or test part.
        names: ``[N]`` bytes, official names of the images, e.g. ``b"n01440764_10026.JPEG"``.
        sizes: ``[N]`` int64, bytes of the encoded images; 0 for an image that is encoded when it is read.
        read: Thread-safe function from index to encoded JPEG or PNG bytes; raises DataError if they are missing.
        digest: The sha256 of the listing, part of the key of the shards; the same for an archive and the tree
            extracted from it.
        missing: One line per count that differs from the official one, with ``allow_partial``.
        crop_bottom: Rows of pixels at the lower edge that are not part of the image; crops must stay above them.
        content: ``[N]`` uint64, digests of the encoded images (``with_content``), on which the splits of a growing
            set depend; None where the splits are official or a seeded permutation.
        unused: One line per reason for which files below ``data.path`` are no samples, with their number.
        class_differences: One line per split that lacks classes which another split has.
        duplicates: One line if equal images are in several classes, and one per split that has images of train.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    split: NDArray[np.int8]
    own_val: bool
    names: NDArray[np.bytes_]
    sizes: NDArray[np.int64]
    read: Callable[[int], bytes]
    digest: str
    missing: tuple[str, ...] = ()
    crop_bottom: int = 0
    content: NDArray[np.uint64] | None = None
    unused: tuple[str, ...] = ()
    class_differences: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """One data set: a row of ``catalog.py``.

    Attributes:
        open: Opener: ``(settings, this row) -> Source``; raises ConfigError and DataError.
        classes: Official number of classes with images.
        images: Official number of images by part.
        metric: Metric of the data set's protocol, the default of ``conf/data/NAME.yaml``.
        downloads: Published files with public addresses.
        undownloadable: Published files without a public address.
        alternatives: Names of other files that the opener accepts.
        note: Remark printed after a download; where there is nothing to download, the reason.
        packaged: Whether the data set is part of a Python package that effnet requires, so that it needs no
            ``data.path``.
        package: Optional Python package that contains the data set, so that it needs no ``data.path`` there.
        grows: Whether users add images to it, so that the split of an image must not depend on the others.
        license: SPDX identifier of the license of the images, where it is known to hold for all of them.
        root: Function from the settings to the folder or archive that the places of the images are relative to, where
            that is not ``data.path``.
        lists: Files that only this data set has, each of which tells it from a folder of the user's own.
    """

    open: Callable[[schema.Data, DataSet], Source]
    classes: int = 0
    images: Mapping[int, int] = field(default_factory=dict)
    metric: str = "top-1"
    downloads: tuple[Download, ...] = ()
    undownloadable: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    note: str = ""
    packaged: bool = False
    package: str = ""
    grows: bool = False
    license: str = ""
    root: Callable[[schema.Data], str] | None = None
    lists: tuple[str, ...] = ()

    @property
    def published(self) -> tuple[str, ...]:
        """Names of the published files that make up the data set."""
        return (*(download.name for download in self.downloads), *self.undownloadable)


@dataclass
class Listing:
    """Images collected by an opener, in any order."""

    files: Files
    classes: Sequence[str]
    rows: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    split: list[int] = field(default_factory=list)

    def add(self, row: int | None, name: str, label: int, part: int) -> None:
        """Adds one image; skips a missing file (``row`` is None), which the count check reports."""
        if row is None:
            return
        if not 0 <= label < len(self.classes):
            raise DataError(f"{self.files.root}: {name} has label {label} of {len(self.classes)} classes")
        self.rows.append(row)
        self.names.append(name)
        self.labels.append(label)
        self.split.append(part)

    def keep(self, indices: Sequence[int]) -> None:
        """Keeps the images at some positions alone."""
        for column in (self.rows, self.labels, self.split):
            column[:] = [column[index] for index in indices]
        self.names = [self.names[index] for index in indices]

    def source(self, missing: Sequence[str], crop_bottom: int = 0) -> Source:
        """Builds the source, sorted by part and name, independently of archive or disk order."""
        if not self.rows:
            raise ConfigError(f"{self.files.root}: no image of the data set; {'; '.join(missing)}")
        names = np.array([name.encode("utf-8", "surrogateescape") for name in self.names], np.bytes_)
        split = np.array(self.split, np.int8)
        order = np.lexsort((names, split))
        names, split = names[order], split[order]
        labels = np.array(self.labels, np.int32)[order]
        reader = self.files.reader(np.array(self.rows, np.int64)[order])
        digest = digest_of(
            self.classes, labels, split, names, reader.sizes, b"%d" % crop_bottom if crop_bottom else b""
        )
        own_val = bool(np.any(split == VAL))
        return Source(
            tuple(self.classes),
            labels,
            split,
            own_val,
            names,
            reader.sizes,
            reader,
            digest,
            tuple(missing),
            crop_bottom,
        )


def content_digest(data: bytes | memoryview) -> int:
    """The digest of an encoded image, of 64 bits."""
    return int.from_bytes(blake3(data).digest(8), "little")


def with_content(source: Source, known: Mapping[int, int] | None = None) -> Source:
    """Adds the digests of the images to a source, and to its digest; reads once every image whose digest is not known.

    Args:
        source: The source.
        known: Digests by image.

    Raises:
        DataError: The bytes of an image are missing.
        TransientError: The object store of the source does not respond.
    """

    def digest(index: int) -> int:
        # A file that is excluded for its size is not read: its name stands for its content.
        too_large = source.sizes[index] > MAX_IMAGE_BYTES
        data = bytes(source.names[index]) if too_large else source.read(index)
        return content_digest(data)

    digests = dict(known or {})
    unknown = [index for index in range(len(source.labels)) if index not in digests]
    size = min(_BLOCK, max(1, len(unknown) // _READS_AT_ONCE))
    blocks = [unknown[first : first + size] for first in range(0, len(unknown), size)]
    progress = Progress("images read, on whose content the splits depend", len(unknown))
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for block, read in zip(blocks, pool.map(lambda block: list(map(digest, block)), blocks), strict=True):
            digests.update(zip(block, read, strict=True))
            progress.add(len(block))
    content = np.fromiter((digests[index] for index in range(len(source.labels))), "<u8", len(source.labels))
    whole = hashlib.sha256(source.digest.encode() + content.tobytes()).hexdigest()
    return replace(source, content=content, digest=whole)


def path_of(data: schema.Data, data_set: DataSet) -> str:
    """Returns ``data.path``, or raises a ConfigError that describes the expected contents."""
    if data.path is None:
        raise ConfigError(
            f"data={data.source} needs data.path=FOLDER with {', '.join(data_set.published)}, or with the extracted "
            f"files; `effnet download {data.source} data.path=FOLDER` downloads them or says where to get them"
        )
    return data.path


def root_of(data: schema.Data, data_set: DataSet) -> str:
    """Returns the folder or archive that the places of the images are relative to, on this machine."""
    return locate(path_of(data, data_set)) if data_set.root is None else data_set.root(data)


def open_files(data: schema.Data, data_set: DataSet) -> Files:
    """Opens what exists of the data set at ``data.path``; raises as ``archive.open_files``."""
    return archive.open_files(path_of(data, data_set), (*data_set.published, *data_set.alternatives))


def counts(listing: Listing, official: Mapping[int, int]) -> list[str]:
    """Returns one line per part whose number of images differs from the official one."""
    actual = np.bincount(np.array(listing.split, np.int64), minlength=3)
    return [
        f"{PARTS[part]}: {actual[part]:,} of {number:,} images"
        for part, number in official.items()
        if actual[part] != number
    ]


def absent_classes(listing: Listing, official: int) -> list[str]:
    """Returns a line if classes have no images or their number differs from the official one."""
    seen = set(listing.labels)
    absent = [name for label, name in enumerate(listing.classes) if label not in seen]
    if not absent and len(seen) == official:
        return []
    none = f", none of {list_some(absent)}" if absent else ""
    return [f"classes with images: {len(seen):,} of {official:,}{none}"]


def require_complete(data: schema.Data, lines: Sequence[str]) -> Sequence[str]:
    """Returns ``lines``, which describe missing data, if ``data.allow_partial`` is set.

    Raises:
        DataError: Data are missing and it is not set.
    """
    if lines and not data.allow_partial:
        raise DataError(
            f"{data.name} at {data.path} is incomplete: {'; '.join(lines)}. "
            "Add what is missing, or set data.allow_partial=true"
        )
    return lines


def require_classes(data: schema.Data, source: Source, fewest: int = 2) -> None:
    """Refuses a set that a verb cannot take.

    Args:
        data: Settings.
        source: Images of the set.
        fewest: Number of classes with images that the verb needs; a training, of which two are to be told apart, has 2.

    Raises:
        ConfigError: It has fewer classes, or no images to train on by its settings.
    """
    require_several(data.name, count_classes(source), fewest)
    if fewest > 1 and data.is_only_val:
        raise ConfigError(
            "data.val_folders=[.] takes all images as val, so none is left to train on: effnet evaluate reads it"
        )


def require_several(name: str, classes: int, fewest: int = 2) -> None:
    """Raises ConfigError for fewer classes than a verb takes; of a single one nothing is to be told apart."""
    if classes < fewest:
        raise ConfigError(f"{name} has a single class; a classifier needs two or more")


def count_classes(source: Source) -> int:
    """Returns the number of classes with images."""
    return len(np.unique(source.labels))


def check_listing(data: schema.Data, listing: Listing, data_set: DataSet, crop_bottom: int = 0) -> Source:
    """Builds the source if its counts are official or ``data.allow_partial`` is set.

    Args:
        data: Data settings.
        listing: Images of the set.
        data_set: Row with the official counts.
        crop_bottom: As in ``Source``.

    Raises:
        DataError: Images or classes are missing; the message gives the counts.
    """
    lines = [*counts(listing, data_set.images), *absent_classes(listing, data_set.classes)]
    source = listing.source(require_complete(data, lines), crop_bottom)
    return replace(source, unused=describe_unused(listing))


def describe_unused(listing: Listing) -> tuple[str, ...]:
    """Returns one line per kind of files that are no samples: of an official set they are counted, never refused."""
    unused, used = Unused(), set(listing.rows)
    for row, name in enumerate(listing.files.names):
        if row not in used:
            what = "images that the lists of the set do not have" if is_image_name(name) else "files that are no images"
            unused.add(what, name, could_be_sample=False)
    return unused.lines()


def digest_of(
    classes: Sequence[str],
    labels: NDArray[np.int32],
    split: NDArray[np.int8],
    names: NDArray[np.bytes_],
    sizes: NDArray[np.int64],
    content: bytes = b"",
) -> str:
    """Computes the sha256 of a listing; ``content`` identifies pixels that sizes cannot."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    columns = (labels.astype("<i4"), split.astype("<i1"), sizes.astype("<i8"))
    for part in (*(column.tobytes() for column in columns), b"\n".join(names.tolist()), content):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
