"""A user's files as a tree: formats, common top folders, and folders that repeat the others."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from conf import schema
from infra.errors import ConfigError
from models.data.sources import split_names, splits
from models.data.sources.files import archive, walk
from models.data.sources.files.archive import Files
from models.data.sources.files.image_format import (
    CONVERTIBLE,
    DECODED,
    EMPTY,
    HEAD_BYTES,
    OTHER_LFS,
    PACKED,
    TEXT,
    UNKNOWN,
    describe_files,
    identify_content,
    identify_named,
    is_image_name,
)
from models.data.sources.folders.layouts import find_masks
from models.data.sources.folders.packed import SUFFIXES, find_copies, find_unread_versions
from models.data.sources.listing import Source
from models.data.sources.unused import Unused

ARCHIVE = "archive"  # of the suffix of one
# Formats of files that accompany images.
NO_IMAGES = (*PACKED, ARCHIVE, "PDF", "Parquet", "HDF5", TEXT, EMPTY, OTHER_LFS)
NO_PICTURES = (UNKNOWN, "video", "NumPy")  # formats of files whose folders are therefore no classes
MASKS = "images in folders of masks, which the classes have beside those of images"
COPIES = "images in folders that repeat the others by names and sizes"
_SNIFF_THREADS = 16
_SMALL_BYTES = 2048  # more than a pointer of Git LFS has, or a usual error message; few photographs have less
_SAMPLED = 1_000  # files that are read if none of them is a stranger


@dataclass(frozen=True)
class Tree:
    """A user's files below their common top folder.

    Attributes:
        files: All files.
        images: Row of each file with the format of an image, by its path below ``top``.
        formats: Formats by row, of files whose suffix is not that of JPEG or PNG.
        folders: Folders below ``top`` that hold images, or nothing.
        top: The common top folder, which ends with ``/``, or the empty string.
        excluded: Reason for each image that repeats another one and is therefore in no split, by its path.
    """

    files: Files
    images: dict[str, int]
    formats: dict[int, str]
    folders: frozenset[str]
    top: str
    excluded: dict[str, str] = field(default_factory=dict)

    def format_of(self, row: int) -> str:
        """Returns the format of a file; of one with the suffix of JPEG or PNG it is checked when it is read."""
        return self.formats.get(row, DECODED[0])


def folders_below(tree: Tree, part: str) -> dict[str, str]:
    """Returns the class folders of a part, name -> path with a final slash; a doubled split folder is skipped."""
    inside = [name for name in tree.images if name.startswith(part)]
    if part and all(name.startswith(part + part) for name in inside):
        part += part
    folders = {one.removeprefix(part) for one in tree.folders if one.startswith(part)}
    return {one: f"{part}{one}/" for one in folders if one and "/" not in one}


def formats_taken(data: schema.Data) -> tuple[str, ...]:
    """Returns the formats of images that become samples."""
    return (*DECODED, *CONVERTIBLE) if data.convert else DECODED


def open_tree(root: str, data: schema.Data) -> Tree:
    """Lists a tree; unless settings name folders of splits, those that repeat the others are excluded.

    Raises:
        ConfigError: ``root`` does not exist, all images are held out beside an empty folder of train, or folders may be
            masks as well as images.
        DataError: An archive is damaged.
    """
    files = archive.open_own(root)
    formats = _identify(files)
    images = {name: row for row, name in enumerate(files.names) if formats.get(row) not in NO_IMAGES}
    pictures = [name for name, row in images.items() if formats.get(row) not in NO_PICTURES]
    top = _common_top(pictures or images)
    excluded: dict[str, str] = {}
    if not (data.train_folders or data.val_folders):
        below = {name.removeprefix(top): images[name] for name in pictures if name.startswith(top)}
        taken = formats_taken(data)
        unread = {name for name, row in below.items() if formats.get(row, DECODED[0]) not in taken}
        excluded = {top + name: COPIES for name in find_copies(files, below)}
        excluded = excluded or {top + name: reason for name, reason in find_unread_versions(below, unread).items()}
        left = [name for name in below if top + name not in excluded] if excluded else below
        masks = find_masks(left, root, are_classes=data.label_field is None)
        excluded |= {top + name: MASKS for name in masks}
    if excluded:
        images = {name: row for name, row in images.items() if name not in excluded}
        pictures = [name for name in pictures if name not in excluded]
        top = _common_top(pictures)
    below = {name.removeprefix(top): row for name, row in images.items() if name.startswith(top)}
    folders = {
        name.rsplit("/", up)[0]
        for name in (name.removeprefix(top) for name in pictures or images if name.startswith(top))
        for up in range(1, name.count("/") + 1)
    }
    empty = {name[:-1] for name, why in files.skipped if why == walk.EMPTY_FOLDER}
    _refuse_empty_train(root, top, empty)
    if not (data.train_folders or data.val_folders):
        _refuse_packed_splits(files, top, pictures)
    empty = {name.removeprefix(top) for name in empty if name.startswith(top)}
    return Tree(files, below, formats, frozenset(folders | empty), top, excluded)


def refuse_small_files(data: schema.Data, source: Source) -> None:
    """Refuses a set of which many of the smallest files are no images, as pointers of Git LFS and failed downloads.

    Sharding would refuse it, too, after all images were read. Of many small files some are read first.

    Raises:
        ConfigError: They are as many as sharding refuses.
    """
    if data.append or data.allow_partial or data.limit is not None:  # then not all files count
        return
    _refuse_strangers(data, source, np.flatnonzero(source.sizes < _SMALL_BYTES).tolist())


def refuse_other_formats(data: schema.Data, source: Source) -> None:
    """Refuses a user's images of which many have formats that are not read, whatever their suffix.

    All are read if any of the first has such a format; so it is for sets with too few images for their splits.

    Raises:
        ConfigError: They are as many as sharding refuses.
    """
    if source.content is not None and not data.allow_partial:
        _refuse_strangers(data, source, range(len(source.labels)))


def _refuse_strangers(data: schema.Data, source: Source, checked: Sequence[int]) -> None:
    taken = formats_taken(data)
    with ThreadPoolExecutor(_SNIFF_THREADS, thread_name_prefix="format") as pool:
        for rows in (checked[:: max(1, len(checked) // _SAMPLED)], checked):
            kinds = dict(zip(rows, map(identify_content, pool.map(source.read, rows)), strict=True))
            others = {row: kind for row, kind in kinds.items() if kind not in taken}
            if not others:
                return
    unused = Unused()
    for row, kind in others.items():
        unused.add(describe_files(kind), os.fsdecode(bytes(source.names[row])))
    unused.many = 2 * len(others) > len(source.labels)  # also of a few images
    unused.check(data, len(source.labels) - len(others))


def _refuse_empty_train(root: str, top: str, empty: Collection[str]) -> None:
    """Refuses a tree of which all images are in a held-out folder, beside an empty one of train."""
    above, _, held_out = top.rstrip("/").rpartition("/")
    if split_names.kind_of(held_out) in (None, "train"):
        return
    for name in sorted(empty):
        parent, _, word = name.rpartition("/")
        if parent == above and split_names.kind_of(word) == "train":
            raise ConfigError(f"{root}: {name}/ is empty, all images are in {top}; nothing can be trained on")


def _refuse_packed_splits(files: Files, top: str, pictures: Collection[str]) -> None:
    """Refuses folders of splits that have archives and no images beside such with images, as ``train/CLASS.tar``.

    Also ``train.zip`` beside ``val/``, and a folder of train with other files alone; ``test.zip`` may have no labels.
    """
    above, _, last = top.rstrip("/").rpartition("/")
    prefix = top if split_names.kind_of(last) is None else f"{above}/" if above else ""
    used = {name.removeprefix(prefix).partition("/")[0] for name in pictures if name.startswith(prefix)}
    if not any(map(split_names.kind_of, used)):
        return
    inside: dict[str, list[str]] = {}
    for name in files.names:
        first, slash, rest = name.removeprefix(prefix).partition("/")
        if name.startswith(prefix) and first not in used:
            inside.setdefault(first + slash, []).append(name if slash == "" else f"{prefix}{first}/{rest}")
    has_train = any(split_names.kind_of(one) == "train" for one in used)
    for first, names in sorted(inside.items()):
        is_packed, is_folder = min(names).lower().endswith(SUFFIXES), first.endswith("/")
        kind = split_names.kind_of(first.rstrip("/") if is_folder else first.partition(".")[0])
        is_lost = not has_train and (is_folder or is_packed) if kind == "train" else is_folder and is_packed
        if kind and is_lost:
            remedy = ": extract each archive into a folder of its name" if is_folder else ": unpack it"
            where = ", ".join(sorted(f"{prefix}{one}" for one in used))
            without = f"; data.train_folders=[{where}] works without it" * (has_train or len(used) == 1)
            raise ConfigError(
                f"{files.root}: {prefix}{first} has no images that are read, but {len(names):,} other files, first "
                f"{min(names)}, and all images are in {where}{remedy * is_packed}{without}"
            )


def _identify(files: Files) -> dict[int, str]:
    """Returns the formats of the files whose suffix is not that of JPEG or PNG, from their first bytes."""
    rows = [row for row, name in enumerate(files.names) if not is_image_name(name)]
    heads = dataclasses.replace(files, sizes=np.minimum(files.sizes, HEAD_BYTES)).reader(rows)
    with ThreadPoolExecutor(_SNIFF_THREADS, thread_name_prefix="format") as pool:
        beginnings = list(pool.map(heads, range(len(rows))))
    heads_of = dict(zip(rows, beginnings, strict=True))
    kinds = {row: identify_named(head, files.names[row]) for row, head in heads_of.items()}
    return {row: _as_archive(kind, files.names[row].lower(), heads_of[row]) for row, kind in kinds.items()}


def _as_archive(kind: str, name: str, head: bytes) -> str:
    """Returns archive in place of the format of a file with the suffix of one: most are packed, tars are unknown.

    A tar begins with the name of its first member, which may fill the bytes that are read: then it looks like a text.
    """
    is_name = (
        kind == TEXT and name.endswith(".tar") and len(head) == HEAD_BYTES and re.search(rb"^[<{]|\n", head) is None
    )
    return ARCHIVE if (kind in (*PACKED, UNKNOWN) or is_name) and name.endswith(SUFFIXES) else kind


def _common_top(names: Collection[str]) -> str:
    """Returns the folder, with a final slash, that all images are below but for a few beside it or directly in it.

    A single class is not skipped, nor is train, whose name is needed, unless it holds the splits, as
    ``train_val/{train,val}/CLASS``.
    """
    top, below = "", list(names)
    above_train: str | None = None
    while True:
        firsts = {name.partition("/")[0] for name in below if "/" in name}
        stray = sum(name.count("/") < 2 for name in below)
        if len(firsts) != 1 or stray > splits.STRAY_SHARE * len(below):
            return top if above_train is None or split_names.has_splits(firsts) else above_train
        first = firsts.pop()
        if above_train is None and split_names.kind_of(first) == "train":
            above_train = top
        top += f"{first}/"
        below = [name.removeprefix(f"{first}/") for name in below if name.startswith(f"{first}/")]
