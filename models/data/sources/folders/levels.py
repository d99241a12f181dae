"""Folders at a level that settings name: the classes of ``PATIENT/CLASS/IMAGE``, and groups that no split divides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np
from blake3 import blake3

from conf import schema
from conf.text import escaped, list_some
from infra.errors import ConfigError
from models.data.sources.folders.nested import find_branches, find_groups, one_of_each_folder
from models.data.sources.listing import MINIVAL, SPLITS, TRAIN, VAL, Listing

_FEW = 3  # folders that a remark names


def label_by_level(images: Iterable[str], parts: Collection[str], level: int, root: str) -> dict[str, str]:
    """Returns the name of the folder at a level for each image that has so many folders.

    Args:
        images: Paths of images below the common top folder.
        parts: Folders of the splits, below which the level counts.
        level: 1 for the first folder, -1 for the one that the image is in.
        root: The tree, for messages.

    Raises:
        ConfigError: No image has so many folders, or images have different numbers of folders and the level counts from
            the last one: folders of one name may then be different classes.
    """
    paths = {name: path for name, path in _paths_below(images, parts) if len(path) >= abs(level)}
    if not paths:
        raise ConfigError(f"{root}: no image has {abs(level)} folders above it, which data.class_level={level} needs")
    depths: dict[int, str] = {}
    for name, path in paths.items():
        depths.setdefault(len(path), name)
    if level < 0 and len(depths) > 1:
        shown = ", ".join(f"{depth} of {escaped(depths[depth])}" for depth in sorted(depths))
        raise ConfigError(
            f"{root}: the images are in different numbers of folders ({shown}), so that data.class_level={level} would "
            f"take folders of different levels as classes; data.class_level={min(depths) + 1 + level} counts from the "
            "first one"
        )
    return {name: path[level - 1 if level > 0 else level] for name, path in paths.items()}


def refuse_one_class(images: Iterable[str], parts: Collection[str], level: int, root: str) -> None:
    """Refuses a level at which all images are in folders of one name, with the first level below that has several.

    Args:
        images: Paths of images below the common top folder.
        parts: Folders of the splits, below which the level counts.
        level: The level, as in ``label_by_level``.
        root: The tree, for messages.

    Raises:
        ConfigError: Always.
    """
    paths = [path for _, path in _paths_below(one_of_each_folder(images), parts) if len(path) >= abs(level)]
    first = level if level > 0 else len(paths[0]) + level + 1
    remedy = ""
    for other in range(first + 1, min(map(len, paths)) + 1):
        names = {path[other - 1] for path in paths}
        if len(names) > 1:
            remedy = f": data.class_level={other} takes {list_some(sorted(names))}"
            break
    raise ConfigError(f"{root}: at data.class_level={level} all images are in {paths[0][first - 1]}/{remedy}")


def describe_deeper(entries: Listing, data: schema.Data, parts: Collection[str]) -> tuple[str, ...]:
    """Returns a remark if images of a class are in several folders below it, where settings name the level.

    As ``a/apartment_building/{indoor,outdoor}`` of SUN397, which are two classes, beside ``a/abbey``.
    """
    if data.class_level < 2:
        return ()
    level = data.class_level
    below: dict[str, list[list[str]]] = {}
    for _, path in _paths_below(one_of_each_folder(entries.names), parts):
        below.setdefault("/".join(path[:level]), []).append([*path[level:], ""])
    several = {top: paths for top, paths in sorted(below.items()) if len(paths) > 1}
    groups = level + (find_groups(below.values(), 0) or -level)
    if not several or data.group_level == groups:
        return ()
    shown = [f"{top} ({list_some(sorted(find_branches(paths)[1]), _FEW)})" for top, paths in several.items()]
    hint = f"; data.group_level={groups} keeps the images of each, as of a patient, in one split"
    return (
        f"images in several folders below data.class_level={level} count as one class: {list_some(shown, _FEW)}"
        + hint * (groups > 0 and data.group_level is None),
    )


def divide_groups(entries: Listing, data: schema.Data, parts: Collection[str]) -> str:
    """Divides the images of train by groups into train, minival and, unless there is one, val; returns what it did.

    The split of a group depends on its name and ``data.seed`` alone, so more images move no group.

    Args:
        entries: The images, whose splits are replaced.
        data: Settings, of which ``group_level`` names the folders.
        parts: Folders of the splits, below which the level counts.

    Raises:
        ConfigError: Images have no such folder or it is that of their class, or a split would have no group.
    """
    level = data.group_level or 0
    if data.minival == "cut":
        raise ConfigError("data.minival=cut would divide the groups of data.group_level")
    paths = dict(_paths_below(entries.names, parts))
    class_level = data.class_level if data.class_level > 0 else data.class_level + 1
    for name, path in paths.items():
        if len(path) < level or (class_level <= 0 and level == len(path) + class_level):
            what = "is that of its class" if len(path) >= level else "does not exist"
            raise ConfigError(
                f"{data.name} at {data.path}: the folder of {escaped(name)} at data.group_level={level} {what}"
            )
    groups = {name: path[level - 1] for name, path in paths.items()}
    has_val, has_minival = VAL in entries.split, MINIVAL in entries.split
    draws = {group: _draw(data.seed, group) for group in set(groups.values())}
    present: dict[int, set[str]] = {TRAIN: set(), MINIVAL: set(), VAL: set()}
    for row, name in enumerate(entries.names):
        if entries.split[row] == TRAIN:
            for_val, for_minival = draws[groups[name]]
            if not has_val and for_val < data.val_share:
                entries.split[row] = VAL
            elif not has_minival and for_minival < data.minival_share:
                entries.split[row] = MINIVAL
        present[entries.split[row]].add(groups[name])
    if lacking := [SPLITS[part] for part, inside in present.items() if not inside]:
        raise ConfigError(
            f"{data.name} at {data.path}: none of {len(draws):,} groups (folders at data.group_level={level}) is in "
            f"{' and '.join(lacking)}; choose another data.seed, raise data.val_share or data.minival_share, or name "
            "folders by data.val_folders"
        )
    several = [
        group for group, count in Counter(one for inside in present.values() for one in inside).items() if count > 1
    ]
    said = ", ".join(f"{len(inside):,} in {SPLITS[part]}" for part, inside in present.items())
    shared = f"; {len(several):,} are in several splits, which folders or lists state: {list_some(sorted(several))}"
    return f"{len(draws):,} groups of images, as {list_some(sorted(draws))}: {said}" + shared * bool(several)


def _paths_below(images: Iterable[str], parts: Collection[str]) -> Iterable[tuple[str, list[str]]]:
    """Yields each image of the parts with its folders below its part."""
    for name in images:
        part = next((top for top in parts if name.startswith(top)), None)
        if part is not None:
            yield name, name.removeprefix(part).split("/")[:-1]


def _draw(seed: int, group: str) -> tuple[float, float]:
    """Returns two numbers in [0, 1) for a group: a draw for val, and one for minival."""
    digest = blake3(f"{seed} {group}".encode("utf-8", "surrogateescape")).digest(16)
    for_val, for_minival = (np.frombuffer(digest, "<u8") / 2.0**64).tolist()
    return for_val, for_minival
