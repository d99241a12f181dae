"""Folders that are no classes by their names: parts of a set, copies, masks, and beginnings of names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.listing import NAMED, TRAIN
from models.data.sources.splits import FILLERS, WHOLE_TREE, has_splits, kind_of

_PARTS = ("images", "image", "imgs", "img", "part", "batch", "fold", "split", "chunk", "shard")
_BEGINNING = 2  # characters of a name that a folder has
_MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "groundtruth", "trimaps"),
    *("segmentations", "segmentation", "segs", "seg"),
)


def are_parts(folders: Collection[str]) -> bool:
    """Whether folders are numbered parts of one set rather than classes, as ``images_part_1`` and ``images_part_2``."""
    stems = {re.sub(r"\d+", "", folder.lower()) for folder in folders}
    return len(folders) > 1 and len(stems) == 1 and any(word in _PARTS for word in re.split(r"[^a-z]+", stems.pop()))


def find_masks(images: Collection[str]) -> list[str]:
    """Returns the images in folders of masks that two or more classes have beside a folder of images.

    As ``COVID/masks`` beside ``COVID/images`` in a public set of X-ray images.
    """
    folders: dict[str, dict[str, list[str]]] = {}
    for name in images:
        above, _, folder = name.rpartition("/")[0].rpartition("/")
        if above and kind_of(above.rpartition("/")[2]) is None:
            folders.setdefault(above, {}).setdefault(folder, []).append(name)
    masks: dict[str, list[str]] = {}
    for above, inside in folders.items():
        words = {folder: set(re.split(r"[^a-z]+", folder.lower())) for folder in inside}
        named = [folder for folder in inside if words[folder] & set(_MASKS)]
        if named and any(words[folder] & set(FILLERS) for folder in inside if folder not in named):
            masks[above] = [name for folder in named for name in inside[folder]]
    return [name for names in masks.values() for name in names] if len(masks) > 1 else []


def are_beginnings(images: Collection[str]) -> bool:
    """Whether folders are the beginnings of the names of their images, as in ``train/0/1/2/0123abcd.jpg``."""
    paths = (image.split("/") for image in images)
    return bool(images) and all(
        len(path) > 2 and max(map(len, path[:-1])) <= _BEGINNING and path[-1].startswith("".join(path[:-1]))
        for path in paths
    )


def refuse_beginnings(folders: Sequence[str], parts: Mapping[str, int], root: str) -> None:
    """Refuses folders that are the beginnings of the names of their images, of which no table has the classes.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"{root}: the folders {list_some(folders)} are the beginnings of the names of their images, not "
        f"classes, and no CSV file has the classes of these; {_describe_classes(parts)} takes the folders as classes"
    )


def refuse_parts(folders: Sequence[str], parts: Mapping[str, int], root: str, *, named: bool, are_stated: bool) -> None:
    """Refuses folders that are splits, numbered parts of a set, or images and their masks, but no classes.

    Args:
        folders: Folders that would be the classes.
        parts: Folders of the splits that they are in.
        root: The tree, for messages.
        named: Whether settings name the folders of the splits, so that names of splits, numbers and copies are classes.
        are_stated: Whether a held-out split has the same folders, so that numbers and copies are classes.

    Raises:
        ConfigError: They are no classes by their names.
    """
    above = next(top for top, part in parts.items() if part == TRAIN)
    as_classes = _describe_classes(parts)
    if not named and has_splits(folders) and all(map(kind_of, folders)):
        train = ",".join(above + one for one in folders if kind_of(one) == "train")
        held_out = ",".join(above + one for one in folders if kind_of(one) != "train")
        raise ConfigError(
            f"{root}: the folders {', '.join(folders)} in {above or 'it'} are splits by their names, not classes: "
            f"data.train_folders=[{train}] data.val_folders=[{held_out}] takes them as splits"
        )
    are_stated |= named
    if not are_stated and are_parts(folders):
        shown = ", ".join(folders[:NAMED]) + (", ..." if len(folders) > NAMED else "")
        raise ConfigError(
            f"{root}: the folders {shown} look like numbered parts of one set, not like classes; "
            f"data.val_folders=[{above}{folders[-1]}] makes that one val and the others train, each with folders of "
            f"classes; data.train_folders=[{','.join(above + one for one in folders)}] makes all train; "
            f"{as_classes} takes them as classes"
        )
    if not are_stated and len(folders) > 1 and len({folder.casefold() for folder in folders}) == 1:
        raise ConfigError(
            f"{root}: the folders {', '.join(folders)} look like copies of one set: give data.path one of them; "
            f"{as_classes} takes them as classes"
        )
    words = {folder: set(re.split(r"[^a-z]+", folder.lower())) for folder in folders}
    masks = [folder for folder, parts in words.items() if parts & set(_MASKS)]
    pictures = [folder for folder in folders if folder not in masks and words[folder] & set(FILLERS)]
    if masks and pictures and len(masks) + len(pictures) == len(folders):
        remedy = "" if above else f"; {as_classes} takes the folders as classes"
        raise ConfigError(
            f"{root}: {', '.join(pictures)} and {', '.join(masks)} look like images and their masks, not like classes; "
            f"data.train_folders=[{above}{pictures[0]}] takes the images alone, with folders or a CSV file of their "
            f"classes{remedy}"
        )


def _describe_classes(parts: Mapping[str, int]) -> str:
    """Returns the settings by which the folders in the parts are classes, whatever their names."""
    train = ",".join(top.rstrip("/") or WHOLE_TREE for top, part in parts.items() if part == TRAIN)
    held_out = ",".join(top.rstrip("/") for top, part in parts.items() if part != TRAIN)
    return f"data.train_folders=[{train}]" + (f" data.val_folders=[{held_out}]" if held_out else "")
