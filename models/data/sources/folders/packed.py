"""What lies in a tree besides its images: archives that were unpacked there or not, and other versions of the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import PurePath

import numpy as np

from models.data.sources import split_names
from models.data.sources.files import walk
from models.data.sources.files.archive import ARCHIVES, Files
from models.data.sources.files.image_format import HEAD_BYTES
from models.data.sources.files.unread_formats import describe, find_format
from models.data.sources.tables.reading import MAX_BYTES
from models.data.sources.unused import LOST_SHARE, Unused

SUFFIXES = (*ARCHIVES, ".7z", ".rar", ".zst", ".lz4")
_BEGINNING = 2**16  # bytes of a table that are searched
_TRIED = 50  # files whose first bytes are read


def count_archives(files: Files, archives: Sequence[str], places: Collection[str], unused: Unused) -> None:
    """Counts archives: those beside the folder of their name, and others, whose images are lost.

    Several that lie among the folders of classes may be further classes, which are refused. Those above them are what
    the tree was unpacked from (``ILSVRC2012_img_train.tar`` beside ``train/``), annotations, or a development kit.

    Args:
        files: The tree.
        archives: Names of the archives in it.
        places: Folders in which the folders of classes are, which end with ``/``; the empty string for the top.
        unused: What receives the archives.
    """
    empty = {name for name, why in files.skipped if why == walk.EMPTY_FOLDER}
    folders = {
        name.rsplit("/", up)[0].casefold() for name in {*files.names, *empty} for up in range(1, name.count("/") + 1)
    }
    folders.add(PurePath(files.root).name.casefold())  # an archive in the folder that it was unpacked to
    packed = {name: stem for name in archives if (stem := _stem(name)).casefold() not in folders}
    classes = [name for name, stem in packed.items() if _may_be_class(stem, places)]
    for name in archives:
        if name in packed:
            reason = "archives in the folder (unpack them, they are not read)"
            unused.add(reason, name, holds_many=len(classes) > 1)
        else:
            unused.add("archives beside the folder of their name", name, could_be_sample=False)


def describe_containers(files: Files) -> str:
    """Returns a remark on a file that may hold the images of a tree without any; empty for none."""
    sizes = files.sizes
    forms = {row: form for row, name in enumerate(files.names) if (form := find_format(name)) is not None}
    if not forms:
        tried = list(range(min(len(files.names), _TRIED)))
        heads = dataclasses.replace(files, sizes=np.minimum(sizes, HEAD_BYTES)).reader(tried)
        forms = {row: form for row in tried if (form := find_format("", heads(row))) is not None}
    if forms:  # the largest, beside which others have facts about the images
        largest = max(forms, key=lambda row: (int(sizes[row]), -row))
        return f"; {describe(files.names[largest], forms[largest])}"
    if pointers := [name for name in files.names if name.endswith(".dvc")]:
        return f"; {min(pointers)} is a DVC pointer: dvc pull fetches the images"
    row = next((row for row, name in enumerate(files.names) if name.lower().endswith((".csv", ".tsv"))), None)
    if row is None:
        return ""
    if files.sizes[row] <= MAX_BYTES and b"://" in files.read(row)[:_BEGINNING]:
        return f"; {files.names[row]} has addresses, of which nothing is downloaded: img2dataset downloads them"
    return f"; {files.names[row]} may have the pixels or the names of images that are elsewhere: save them as files"


def find_copies(files: Files, images: Mapping[str, int]) -> list[str]:
    """Returns the images in top folders that repeat what is beside them, by names and sizes.

    As ``chest_xray/chest_xray/train/...`` beside ``chest_xray/train/...`` in a public set of X-ray images. Folders of
    classes or splits that somebody filled from others are none.

    Args:
        files: The tree.
        images: Rows by the path below the common top folder.
    """
    inside: dict[str, list[str]] = {}
    for name in images:
        top, slash, _ = name.partition("/")
        if slash and split_names.kind_of(top) is None:
            inside.setdefault(top, []).append(name)

    def is_repeated(name: str) -> bool:
        rest = name.partition("/")[2]
        other = images.get(rest) if "/" in rest else None
        return other is not None and files.sizes[other] == files.sizes[images[name]]

    nested = [name for names in inside.values() if all(map(is_repeated, names)) for name in names]
    return nested or _find_other_spellings(files, images, inside)


def _find_other_spellings(files: Files, images: Mapping[str, int], inside: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the images in top folders that have the name of another one in upper or lower case, and the same files.

    As ``ham10000_images_part_1`` beside ``HAM10000_images_part_1`` in a public set of skin lesions. If all folders have
    one name, each may be meant.
    """
    first: dict[str, str] = {}
    copies: list[str] = []
    for top, names in sorted(inside.items()):
        other = first.setdefault(top.casefold(), top)
        if other != top:
            sizes = [
                {name.partition("/")[2]: int(files.sizes[images[name]]) for name in group}
                for group in (names, inside[other])
            ]
            copies += names if sizes[0] == sizes[1] else []
    return copies if len(first) > 1 else []


def find_unread_versions(images: Mapping[str, int], unread: Set[str]) -> dict[str, str]:
    """Returns the images in top folders that have the images of another one in formats that are not read.

    As ``EuroSATallBands/Forest/Forest_1.tif``, of 13 bands, beside ``EuroSAT/Forest/Forest_1.jpg``. The images of one
    folder are all read, and those of the others are not and have the same names in the same folders.

    Args:
        images: Rows by the path below the common top folder.
        unread: Those whose formats are not read.

    Returns:
        The reason for each image that is not read, for the list of unused files.
    """
    if not unread:
        return {}
    inside: dict[str, list[str]] = {}
    for name in images:
        top, slash, _ = name.partition("/")
        if slash:
            inside.setdefault(top, []).append(name)
    if any(split_names.kind_of(top) is not None for top in inside):
        return {}  # the images of a split have names of their own, also if these are numbers
    read_tops = [top for top, names in inside.items() if any(name not in unread for name in names)]
    if len(read_tops) != 1 or len(inside) < 2 or any(name in unread for name in inside[read_tops[0]]):
        return {}
    first = read_tops[0]
    stems = {top: _stems_below_common_folders(names) for top, names in inside.items()}
    folders = {stem.partition("/")[0] for stem in stems[first] if "/" in stem}
    if len(folders) < 2 or any(len(one ^ stems[first]) > LOST_SHARE * len(stems[first]) for one in stems.values()):
        return {}
    reason = f"images of the same names as in {first}/, in a format that is not read"
    return {name: reason for top, names in inside.items() if top != first for name in names}


def _stems_below_common_folders(names: Sequence[str]) -> set[str]:
    """Returns paths without suffix, below the folders that contain all of them."""
    parts = [name.rpartition(".")[0].split("/") for name in names]
    depth = 0
    while len({tuple(one[: depth + 1]) for one in parts}) == 1 and all(len(one) > depth + 2 for one in parts):
        depth += 1
    return {"/".join(one[depth:]) for one in parts}


def _stem(name: str) -> str:
    """Returns the name of an archive without its suffix, or two of them, as of ``a.tar.zst``."""
    suffix = next(suffix for suffix in SUFFIXES if name.lower().endswith(suffix))
    stem = name[: -len(suffix)]
    return stem[:-4] if stem.lower().endswith(".tar") else stem


def _may_be_class(stem: str, places: Collection[str]) -> bool:
    above, slash, name = stem.rpartition("/")
    return above + slash in places and not split_names.names_no_class(name) and split_names.split_of(name) is None
