"""ImageNet (ILSVRC2012) from its official archives, which are read in place, or from an extracted tree.

The label is the rank of the sorted WNID, as in every library; NOT the ILSVRC2012_ID that the devkit's ground truth
holds, which is mapped ID -> WNID -> rank.

Source: readme.txt and data/meta.mat of ILSVRC2012_devkit_t12.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from conf import schema
from conf.text import list_some
from infra import store
from infra.errors import ConfigError, DataError
from models.data.sources import listing
from models.data.sources.files import archive
from models.data.sources.files.archive import Files
from models.data.sources.files.container import join_parts, locate
from models.data.sources.listing import TRAIN, VAL, DataSet, Listing, Source
from models.data.sources.published import class_folders
from models.data.sources.tables import matlab
from models.data.sources.tables.csv_labels import read_labels

TRAIN_ARCHIVE, VAL_ARCHIVE = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
KAGGLE_LABELS = "LOC_val_solution.csv"
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass(frozen=True)
class Devkit:
    """Contents of the devkit.

    Attributes:
        wnids: The 1,000 classes, sorted: the label is the index.
        train_images: Number of training images per class, by label.
        val_labels: Label of each validation image, in the order of their numbers, which start at 1.
    """

    wnids: tuple[str, ...]
    train_images: tuple[int, ...]
    val_labels: tuple[int, ...]


def read_devkit(files: Files, data_set: DataSet) -> Devkit:
    """Reads the devkit from its archive or folder.

    Raises:
        ConfigError: The devkit is missing.
        DataError: It is not the 2012 devkit.
    """
    rows = [files.find(f"data/{name}") for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")]
    if rows[0] is None or rows[1] is None:
        raise ConfigError(f"{files.root}: the labels of val require {DEVKIT_ARCHIVE} or Kaggle's {KAGGLE_LABELS}")
    synsets = matlab.load(files, rows[0], "synsets")
    try:
        leaves = sorted(
            (str(synset["WNID"]), int(synset["ILSVRC2012_ID"]), int(synset["num_train_images"]))
            for synset in synsets
            if int(synset["num_children"]) == 0
        )
        rank = {identity: label for label, (_, identity, _) in enumerate(leaves)}
        val_labels = tuple(rank[int(line)] for line in files.read(rows[1]).split())
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{files.root}: {DEVKIT_ARCHIVE} has another structure than expected: {error!r}") from error
    if len(leaves) != data_set.classes or len(val_labels) != data_set.images[VAL]:
        raise DataError(
            f"{files.root}: the devkit has {len(leaves)} of {data_set.classes} classes and {len(val_labels)} of "
            f"{data_set.images[VAL]} validation labels"
        )
    wnids, _, train_images = zip(*leaves, strict=True)
    return Devkit(tuple(wnids), tuple(train_images), val_labels)


def open_imagenet(data: schema.Data, data_set: DataSet) -> Source:
    """Opens the archives; or ``train/WNID/*.JPEG`` with ``val/WNID/*.JPEG``, or with ``val/*.JPEG`` and labels.

    The labels are in the devkit, or in Kaggle's ``LOC_val_solution.csv``.

    Raises:
        ConfigError: An archive or the devkit is missing.
        DataError: The data are damaged, or incomplete without ``data.allow_partial``.
    """
    root = locate(listing.path_of(data, data_set))
    present = {name for name in data_set.published if _exists(join_parts(root, name))}
    if TRAIN_ARCHIVE in present:
        if absent := {VAL_ARCHIVE, DEVKIT_ARCHIVE} - present:
            raise ConfigError(f"{root} has {TRAIN_ARCHIVE} but not {' and not '.join(sorted(absent))}")
        parts = [archive.archive_of_archives(root, TRAIN_ARCHIVE, "train/"), archive.archive(root, VAL_ARCHIVE, "val/")]
    elif root.startswith("s3://") or Path(root).is_dir():
        parts = [archive.walk_folder(root)]
    else:
        raise ConfigError(f"data.path {root} is not a folder: give the one with {' and '.join(data_set.published)}")
    if DEVKIT_ARCHIVE in present:
        parts.append(archive.archive(root, DEVKIT_ARCHIVE, "devkit/"))
    files = archive.merge_files(parts)
    trees = files.folder("train"), files.folder("val")
    for folder, tree in zip(("train", "val"), trees, strict=True):
        class_folders.refuse_archives(f"{root}: {folder}/", tree)
    flat = [path for path in trees[1] if class_folders.is_image(path)]
    has_devkit = files.find("data/meta.mat") is not None
    if flat and not has_devkit and files.find(KAGGLE_LABELS) is not None:
        return listing.check_listing(
            data, _list_kaggle(files, trees[0], {path: trees[1][path] for path in flat}), data_set
        )
    if flat or has_devkit:
        devkit = read_devkit(files, data_set)
        entries = _list_images(files, *trees, devkit)
        lines = [*listing.counts(entries, data_set.images), *_short_classes(entries, devkit)]
        source = entries.source(listing.require_complete(data, lines))
        return replace(source, unused=listing.describe_unused(entries))
    entries = class_folders.with_short_names(class_folders.split_folders(files, ("train", "val"), data_set))
    return listing.check_listing(data, entries, data_set)


def _list_kaggle(files: Files, train: dict[str, int], val: dict[str, int]) -> Listing:
    wnids = sorted(
        {path.partition("/")[0] for path in train if class_folders.is_image(path.rpartition("/")[2]) and "/" in path}
    )
    rank = {wnid: label for label, wnid in enumerate(wnids)}
    entries = Listing(files, wnids)
    for path, row in train.items():
        wnid, _, name = path.rpartition("/")
        if wnid in rank and class_folders.is_image(name):
            entries.add(row, name, rank[wnid], TRAIN)
    for path, wnid in read_labels(files, list(val), rank)[0].items():
        entries.add(val[path], path, rank[wnid], VAL)
    return entries


def _exists(location: str) -> bool:
    return store.exists(location) if location.startswith("s3://") else Path(location).is_file()


def _list_images(files: Files, train: dict[str, int], val: dict[str, int], devkit: Devkit) -> Listing:
    entries = Listing(files, devkit.wnids)
    rank = {wnid: label for label, wnid in enumerate(devkit.wnids)}
    for part, tree in ((TRAIN, train), (VAL, val)):
        for path, row in tree.items():
            wnid, _, name = path.rpartition("/")
            if wnid in rank and class_folders.is_image(name):
                entries.add(row, name, rank[wnid], part)
            elif part == VAL and (match := _VAL_NAME.fullmatch(path)):
                number = int(match[1])
                if not 1 <= number <= len(devkit.val_labels):
                    raise DataError(
                        f"{files.root}: {path} is not a validation image; the last is number {len(devkit.val_labels)}"
                    )
                entries.add(row, path, devkit.val_labels[number - 1], part)
    return entries


def _short_classes(entries: Listing, devkit: Devkit) -> Sequence[str]:
    """Returns a line naming the classes whose number of training images differs from the devkit."""
    train = np.array(entries.labels, np.int64)[np.array(entries.split) == TRAIN]
    class_sizes = np.bincount(train, minlength=len(devkit.wnids)).tolist()
    short = [
        f"{wnid} {count:,} of {official:,}"
        for wnid, count, official in zip(devkit.wnids, class_sizes, devkit.train_images, strict=True)
        if count != official
    ]
    if not short:
        return ()
    complete = len(devkit.wnids) - len(short)
    return (f"classes with all their training images: {complete:,} of {len(devkit.wnids):,} ({list_some(short)})",)
