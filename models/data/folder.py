"""Trees with a folder a class: any set of yours, and Imagenette."""

from __future__ import annotations

from pathlib import Path

from conf import schema
from infra.errors import ConfigError
from models.data import archive, listing
from models.data.archive import Files
from models.data.container import located
from models.data.listing import TRAIN, VAL, Listing, Source

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
IMAGENETTE_ARCHIVES = ("imagenette2.tgz", "imagenette2-320.tgz", "imagenette2-160.tgz")
IMAGENETTE = {TRAIN: 9469, VAL: 3925}  # Source: fastai/imagenette README, Imagenette v2
_IMAGENETTE_CLASSES = 10


def open_folder(data: schema.Data) -> Source:
    """``CLASS/IMAGE``, or ``train/CLASS/IMAGE`` beside ``val/CLASS/IMAGE``; label = rank of the class name.

    Raises:
        ConfigError: no path, no such folder, or no images in it.
    """
    if data.path is None:
        raise ConfigError("data=folder needs data.path=/path/to/images (CLASS/IMAGE or {train,val}/CLASS/IMAGE)")
    root = located(data.path)
    if not Path(root).is_dir():
        raise ConfigError(f"data.path {root} is not a folder")
    halved = (Path(root) / "train").is_dir() and (Path(root) / "val").is_dir()
    parts = {"train/": TRAIN, "val/": VAL} if halved else {"": TRAIN}
    folders = [entry for part in parts for entry in (Path(root) / part).iterdir() if entry.is_dir()]
    classes = sorted({folder.name for folder in folders if not folder.name.startswith(".")})
    rank = {name: label for label, name in enumerate(classes)}
    files = archive.walked(root)
    found = Listing(files, classes)
    for prefix, part in parts.items():
        for row, name in enumerate(files.names):
            folder, _, image = name.removeprefix(prefix).partition("/")
            if name.startswith(prefix) and folder in rank and is_image(image):
                found.add(row, name, rank[folder], part)
    if not found.rows:
        raise ConfigError(f"no JPEG or PNG images in {root}/CLASS/ (found classes: {', '.join(classes) or 'none'})")
    return found.source(())


def open_imagenette(data: schema.Data) -> Source:
    """Imagenette v2 of any size: its archive, or ``{train,val}/WNID/*.JPEG``; the ten WNIDs are the classes.

    Raises:
        DataError: other counts than the official ones.
    """
    files = archive.open_files(listing.path_of(data, IMAGENETTE_ARCHIVES[0]), IMAGENETTE_ARCHIVES)
    found = split_folders(files, ("train", "val"), _IMAGENETTE_CLASSES)
    return listing.checked(data, found, IMAGENETTE, _IMAGENETTE_CLASSES)


def is_image(name: str) -> bool:
    """A file name, without folders, that says JPEG or PNG."""
    return "/" not in name and name.lower().endswith(IMAGE_SUFFIXES)


def split_folders(files: Files, folders: tuple[str, str], classes: int) -> Listing:
    """A listing of ``TRAIN/CLASS/IMAGE`` and ``VAL/CLASS/IMAGE``; label = rank of the class name.

    Raises:
        ConfigError: no such folders, or more classes than there are in the set.
    """
    trees = [files.folder(folder) for folder in folders]
    names = sorted({folder for tree in trees for path in tree for folder, _, image in [path.partition("/")] if image})
    if not names or len(names) > classes:
        raise ConfigError(f"{files.root} holds {len(names)} folders {folders[0]}/CLASS, {classes} are expected")
    rank = {name: label for label, name in enumerate(names)}
    found = Listing(files, names)
    for part, top, tree in zip((TRAIN, VAL), folders, trees, strict=True):
        for path, row in tree.items():
            folder, _, image = path.partition("/")
            if is_image(image):
                found.add(row, f"{top}/{path}", rank[folder], part)
    return found
