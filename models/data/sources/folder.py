"""Sets with one folder per class: user data and Imagenette, as a tree or in one archive."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from conf import schema
from infra.errors import ConfigError
from models.data.sources import archive, listing
from models.data.sources.archive import ARCHIVES, Files
from models.data.sources.container import locate
from models.data.sources.listing import TRAIN, VAL, DataSet, Listing, Source

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
HELD_OUT = ("val", "test")  # folders beside train/


def is_image(name: str) -> bool:
    """Returns whether a file name without folders has a JPEG or PNG suffix."""
    return "/" not in name and name.lower().endswith(IMAGE_SUFFIXES)


def open_folder(data: schema.Data) -> Source:
    """Opens ``CLASS/IMAGE``, or ``train/CLASS/IMAGE`` beside ``val/`` or ``test/``; label = rank of the class name.

    Raises:
        ConfigError: No path, an empty path, or no images in it.
    """
    if data.path is None:
        raise ConfigError("data=folder needs data.path=/path/to/images (CLASS/IMAGE or {train,val}/CLASS/IMAGE)")
    root = locate(data.path)
    here = Path(root).is_dir()
    packed = root.lower().endswith(ARCHIVES) and not here
    if not (here or packed or root.startswith("s3://")):
        raise ConfigError(f"data.path {root} is not a folder")
    files = archive.open_files(root, ()) if packed else archive.walk_folder(root)
    names = _without_top(files.names) if packed else files.names
    folders = {name.rpartition("/")[0] for name in names} | (_folders(root) if here else set())
    parts = {"": TRAIN}
    for held_out in HELD_OUT:
        if all(any(f"{one}/".startswith(f"{half}/") for one in folders) for half in ("train", held_out)):
            parts = {"train/": TRAIN, f"{held_out}/": VAL}
            break
    classes = sorted({one.removeprefix(top) for top in parts for one in folders if _is_class(one, top)})
    rank = {name: label for label, name in enumerate(classes)}
    entries = Listing(files, classes)
    for top, part in parts.items():
        for row, name in enumerate(names):
            one, _, image = name.removeprefix(top).partition("/")
            if name.startswith(top) and one in rank and is_image(image):
                entries.add(row, name, rank[one], part)
    if not entries.rows:
        raise ConfigError(f"no JPEG or PNG images in {root}/CLASS/ (found classes: {', '.join(classes) or 'none'})")
    return entries.source(())


def _without_top(names: Sequence[str]) -> Sequence[str]:
    """Strips the single top folder that most archives have."""
    tops = {name.partition("/")[0] for name in names}
    if (
        len(tops) == 1
        and tops.isdisjoint({"train"})
        and all(name.count("/") >= 2 for name in names if is_image_path(name))
    ):
        return [name.partition("/")[2] for name in names]
    return names


def is_image_path(path: str) -> bool:
    """Returns whether a path has an image suffix."""
    return is_image(path.rpartition("/")[2])


def _folders(root: str) -> set[str]:
    """Lists folders two levels deep, including empty ones: a class without images is still a class."""
    first = [entry.name for entry in os.scandir(root) if entry.is_dir()]
    return {
        *first,
        *(f"{one}/{entry.name}" for one in first for entry in os.scandir(Path(root) / one) if entry.is_dir()),
    }


def _is_class(folder: str, top: str) -> bool:
    name = folder.removeprefix(top)
    return folder.startswith(top) and bool(name) and "/" not in name and not name.startswith(".")


def open_imagenette(data: schema.Data, data_set: DataSet) -> Source:
    """Opens Imagenette or Imagewoof, v2, of any size: its archive, or ``{train,val}/WNID/*.JPEG``.

    The ten WNIDs are the classes.

    Raises:
        DataError: The counts differ from the official ones.
    """
    files = listing.open_files(data, data_set)
    entries = split_folders(files, ("train", "val"), data_set.classes)
    return listing.check_listing(data, with_short_names(entries), data_set)


def split_folders(files: Files, folders: tuple[str, str], classes: int) -> Listing:
    """Lists ``TRAIN/CLASS/IMAGE`` and ``VAL/CLASS/IMAGE``; label = rank of the class name.

    Raises:
        ConfigError: The folders are missing, or have more classes than the set.
    """
    trees = [files.folder(folder) for folder in folders]
    names = sorted(
        {one for tree in trees for path in tree for one, _, image in [path.partition("/")] if is_image(image)}
    )
    if not names or len(names) > classes:
        raise ConfigError(f"{files.root} has {len(names)} folders {folders[0]}/CLASS/IMAGE, {classes} are expected")
    rank = {name: label for label, name in enumerate(names)}
    entries = Listing(files, names)
    for part, top, tree in zip((TRAIN, VAL), folders, trees, strict=True):
        for path, row in tree.items():
            one, _, image = path.partition("/")
            if is_image(image):
                entries.add(row, f"{top}/{path}", rank[one], part)
    return entries


def with_short_names(entries: Listing) -> Listing:
    """Reduces names to file names, which are unique in ImageNet and its subsets."""
    entries.names = [name.rpartition("/")[2] for name in entries.names]
    return entries
