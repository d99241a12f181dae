"""Official sets with one folder per class below one per split: Imagenette, Imagewoof, and extracted trees of others."""

from __future__ import annotations

from collections.abc import Collection

from conf import schema
from conf.text import count, list_some
from infra.errors import ConfigError
from models.data.sources import listing
from models.data.sources.files.archive import ARCHIVES, Files
from models.data.sources.files.image_format import is_image_name
from models.data.sources.listing import NAMED, TRAIN, VAL, DataSet, Listing, Source


def is_image(name: str) -> bool:
    """Returns whether a file name without folders has a JPEG or PNG suffix."""
    return "/" not in name and is_image_name(name)


def open_imagenette(data: schema.Data, data_set: DataSet) -> Source:
    """Opens Imagenette or Imagewoof, v2, of any size: its archive, or ``{train,val}/WNID/*.JPEG``.

    The ten WNIDs are the classes.

    Raises:
        DataError: The counts differ from the official ones.
    """
    files = listing.open_files(data, data_set)
    entries = split_folders(files, ("train", "val"), data_set)
    return listing.check_listing(data, with_short_names(entries), data_set)


def split_folders(files: Files, folders: tuple[str, str], data_set: DataSet) -> Listing:
    """Lists ``TRAIN/CLASS/IMAGE`` and ``VAL/CLASS/IMAGE``; label = rank of the class name.

    Raises:
        ConfigError: The folders are missing, have archives in place of classes, or more classes than the set.
    """
    trees = [files.folder(folder) for folder in folders]
    for folder, tree in zip(folders, trees, strict=True):
        refuse_archives(f"{files.root}: {folder}/", tree)
    names = sorted(
        {one for tree in trees for path in tree for one, _, image in [path.partition("/")] if is_image(image)}
    )
    if not names:
        seen = sorted({name.partition("/")[0] for name in files.names})
        raise ConfigError(
            f"{files.root} has {list_some(seen, NAMED) or 'no files'}, and neither {' nor '.join(data_set.published)} "
            f"nor folders {folders[0]}/CLASS/IMAGE; data=folder reads images of your own"
        )
    if len(names) > data_set.classes:
        raise ConfigError(
            f"{files.root} has {len(names)} folders {folders[0]}/CLASS/IMAGE, {data_set.classes} are expected; "
            "data=folder reads images of your own"
        )
    rank = {name: label for label, name in enumerate(names)}
    entries = Listing(files, names)
    for part, top, tree in zip((TRAIN, VAL), folders, trees, strict=True):
        for path, row in tree.items():
            one, _, image = path.partition("/")
            if is_image(image):
                entries.add(row, f"{top}/{path}", rank[one], part)
    return entries


def refuse_archives(place: str, tree: Collection[str]) -> None:
    """Raises ConfigError for a folder that has an archive for each class, as ImageNet's train once it is extracted."""
    packed = sorted(path for path in tree if "/" not in path and path.endswith(ARCHIVES))
    if packed and not any(is_image(path.rpartition("/")[2]) for path in tree):
        raise ConfigError(
            f"{place} has {count(len(packed), 'archive')} and no images: extract each, as {packed[0]}, into a folder "
            "of its name"
        )


def with_short_names(entries: Listing) -> Listing:
    """Reduces names to file names, which are unique in ImageNet and its subsets."""
    entries.names = [name.rpartition("/")[2] for name in entries.names]
    return entries
