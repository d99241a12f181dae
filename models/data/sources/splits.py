"""Recognizes the splits of a user's images by the names of their folders: train, val and test, in many spellings."""

from __future__ import annotations

import re
from collections.abc import Collection

from infra.errors import ConfigError
from models.data.sources.listing import MINIVAL, NAMED, TRAIN, VAL

WHOLE = {"": TRAIN}  # the parts of a tree without splits: its top folders are classes
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
_PARTS = ("images", "image", "imgs", "img", "part", "batch", "fold")


def find_splits(images: Collection[str], root: str) -> dict[str, int]:
    """Returns the parts by their folders, which end with ``/``; ``WHOLE`` if the top folders are classes.

    Beside the folders of train, one kind of held-out folder is val; of two, ``val/`` is minival and ``test/`` is val.

    Args:
        images: Paths of the images below the common top folder.
        root: The tree, for messages.

    Raises:
        ConfigError: The folders are held-out splits without a train folder.
    """
    tops = sorted({name.partition("/")[0] for name in images if "/" in name})
    below: dict[str, set[str]] = {top: set() for top in tops}
    for name in images:
        top, _, rest = name.partition("/")
        folder, slash, _ = rest.partition("/")
        if slash:
            below[top].add(folder)
    for kinds in _groups(tops):
        train, held_out = kinds.get("train", []), [kinds[kind] for kind in ("val", "test") if kind in kinds]
        others = set(tops).difference(*kinds.values())
        nested = set().union(*(below[top] for top in train))
        if train and _are_splits(nested, [below[top] for top in others], bool(held_out) or len(train) > 1):
            parts = (MINIVAL, VAL) if len(held_out) == 2 else (VAL,)
            named = {f"{top}/": part for part, folders in zip(parts, held_out, strict=False) for top in folders}
            return {**{f"{top}/": TRAIN for top in train}, **named}
        if not train and held_out and not others and len(tops) > 1:
            held_out_tops = " and ".join(top for folders in held_out for top in folders)
            raise ConfigError(f"{root} has {held_out_tops}, but no train folder beside them")
    return WHOLE


def split_of(name: str) -> str | None:
    """Returns the split that the words of a name state, as train for ``Train_labels.csv``; None for no single one."""
    kinds = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_WORDS}
    return kinds.pop() if len(kinds) == 1 else None


def describe_shared(images: Collection[str], classes: Collection[str]) -> tuple[str, ...]:
    """Returns a remark if every class has the same folders, which may be the classes, or splits.

    Args:
        images: Paths of the images.
        classes: Folders of the classes, which end with ``/``.
    """
    below: dict[str, set[str]] = {folder: set() for folder in classes}
    for name in images:
        for depth in (1, 2):  # a folder of a class is at the top, or in that of its split
            parts = name.split("/")
            folder = "/".join(parts[:depth]) + "/"
            if folder in below and len(parts) > depth + 1:
                below[folder].add(parts[depth])
    shared = next(iter(below.values()), set())
    if len(below) < 2 or len(shared) < 2 or any(folders != shared for folders in below.values()):
        return ()
    named = ", ".join(sorted(shared)[:NAMED]) + (", ..." if len(shared) > NAMED else "")
    return (
        f"every class has the same folders {named}, which count neither as classes nor as splits: if they are the "
        "classes, name the folders above them train and val; if they are splits, move them above the classes",
    )


def are_parts(folders: Collection[str]) -> bool:
    """Whether folders are numbered parts of one set rather than classes, as ``images_part_1`` and ``images_part_2``."""
    stems = {re.sub(r"\d+", "", folder.lower()) for folder in folders}
    return len(folders) > 1 and len(stems) == 1 and any(word in _PARTS for word in re.split(r"[^a-z]+", stems.pop()))


def _are_splits(train: set[str], others: list[set[str]], has_more: bool) -> bool:
    """Whether a folder named train is a split and no class.

    Args:
        train: Folders in it.
        others: Folders in each folder beside it that is named otherwise.
        has_more: Whether held-out folders, or another train folder, are beside it.
    """
    if not train:  # images without folders of classes, beside other splits and nothing else
        return has_more and not others
    if has_more or not others:
        return True
    shared = max(len(train & other) for other in others)
    return shared >= 2 and 2 * shared >= len(train)


def _groups(tops: Collection[str]) -> list[dict[str, list[str]]]:
    """Groups the folders that are named as splits and alike otherwise, as ``seg_train`` and ``seg_test``."""
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for top in tops:
        words = [word for word in re.split(r"[^a-z]+", top.lower()) if word]
        kinds = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
        if len(kinds) == 1:
            rest = tuple(word for word in words if word not in SPLIT_WORDS)
            groups.setdefault(rest, {}).setdefault(kinds[0], []).append(top)
    return [kinds for _, kinds in sorted(groups.items(), key=lambda item: len(item[0]))]
