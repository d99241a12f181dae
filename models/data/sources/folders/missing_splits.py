"""Splits that a tree seems to have and that are not read: of other names, in other places, empty, in archives."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources import split_names, splits
from models.data.sources.files import hidden, walk
from models.data.sources.folders import layouts
from models.data.sources.folders.tree import ARCHIVE, Tree, folders_below
from models.data.sources.listing import TRAIN
from models.data.sources.unused import Unused

_OF_TABLES = (".csv.gz", ".txt.gz", ".json.gz", ".csv.zip", ".txt.zip", ".json.zip")  # compressed tables, not images


def find_beside(tree: Tree, parts: Mapping[str, int], classes: Collection[str]) -> str:
    """Returns the single folder beside those of train that has their classes and is no part; empty for none."""
    if parts == splits.WHOLE or set(parts.values()) != {TRAIN}:
        return ""
    others = {name.partition("/")[0] for name in tree.images if "/" in name} - {top.rstrip("/") for top in parts}
    if len(others) != 1:
        return ""
    (other,) = others
    return f"{other}/" if len(folders_below(tree, f"{other}/").keys() & set(classes)) > 1 else ""


def find_linked(tree: Tree, parts: Mapping[str, int]) -> set[str]:
    """Returns the images outside of the parts that are the files of images in them, as ``all/`` behind links to it."""
    tops = tuple(parts)
    outside = [name for name in tree.images if not name.startswith(tops)]
    if not outside or tree.files.containers or tree.files.root.startswith("s3://"):
        return set()

    def identify(name: str) -> int | tuple[int, int]:
        if stamp := int(tree.files.stamps[tree.images[name]]):  # of the file that a link leads to, with its inode
            return stamp
        status = (Path(tree.files.root) / tree.top / name).stat()
        return status.st_dev, status.st_ino

    inside = {identify(name) for name in tree.images if name.startswith(tops)}
    return {name for name in outside if identify(name) in inside}


def describe_beside(other: str, parts: Mapping[str, int]) -> str:
    """Returns the settings that take a folder beside those of train as val; nothing without one."""
    if not other:
        return ""
    train = ",".join(top.rstrip("/") for top in parts)
    return f" (data.train_folders=[{train}] data.val_folders=[{other.rstrip('/')}] takes them as val)"


def find_lost_splits(tree: Tree, unused: Unused) -> tuple[str, ...]:
    """Returns a remark on each folder of a held-out split without images, in whose place a val is drawn from train.

    Dead links to one, and archives of val, are given to ``unused`` as splits of which nothing is left; an archive of
    test may be without labels, as test folders.
    """
    packed = {name for row, name in enumerate(tree.files.names) if tree.formats.get(row) == ARCHIVE}
    packed = {name for name in packed if not name.lower().endswith(_OF_TABLES)}
    filled = {name.partition("/")[0] for name in tree.images}
    filled |= {name.removeprefix(tree.top).partition("/")[0] for name in tree.excluded}
    others = (hidden.HIDDEN, hidden.HIDDEN_FOLDERS, walk.EMPTY_FOLDER)
    links = {name for name, why in tree.files.skipped if why not in others}
    empty = {name for name, why in tree.files.skipped if why == walk.EMPTY_FOLDER}
    lines = set()
    for name in (*tree.files.names, *links, *empty):
        top, slash, _ = name.removeprefix(tree.top).partition("/")
        kind = split_names.kind_of(top.partition(".")[0] if name in packed else top)
        if kind not in ("val", "test") or top in filled or top.startswith("."):
            continue
        if slash:
            lines.add(f"{top}/ has no images, so val is drawn from train")
        elif name in links or (name in packed and kind == "val"):
            unused.whole.append(top)
    return tuple(sorted(lines))


def describe_deeper(tree: Tree, parts: Mapping[str, int], top: str, classes: Collection[str]) -> str:
    """Returns the settings that take a single folder in a held-out part as val, as ``val/images`` with the classes."""
    inside = list(folders_below(tree, top).values())
    if len(inside) != 1 or len(folders_below(tree, inside[0]).keys() & set(classes)) < 2:
        return ""
    train = ",".join(one.rstrip("/") for one, part in parts.items() if part == TRAIN)
    return (
        f" (data.train_folders=[{train}] data.val_folders=[{inside[0].rstrip('/')}] takes the classes in that folder)"
    )


def refuse_divisions(tree: Tree, trains: Sequence[str], folders: Sequence[str]) -> None:
    """Refuses numbered folders that have splits each, as ``split1/train`` and ``split2/train``, which are no classes.

    Raises:
        ConfigError: They are.
    """
    if len(trains) == 1 and layouts.are_parts(folders):
        inside = folders_below(tree, trains[0])
        if all(split_names.has_splits(folders_below(tree, path)) for path in inside.values()):
            first = inside[min(folders)].rstrip("/")
            raise ConfigError(
                f"{tree.files.root}: the folders {list_some(folders)} have splits of their own, as divisions of one "
                f"set have: data.path={tree.files.root}/{tree.top}{first} takes one of them"
            )


def refuse_splits_within(tree: Tree, trains: Sequence[str], classes: Collection[str]) -> None:
    """Refuses folders in train that are splits by their names and have the classes in them, as ``train/val/ant``.

    Raises:
        ConfigError: There is one.
    """
    for top in trains:
        for name, path in folders_below(tree, top).items():
            shared = folders_below(tree, path).keys() & set(classes)
            if split_names.kind_of(name) is not None and len(shared) > 1:
                raise ConfigError(
                    f"{tree.files.root}: {path} is a split by its name, and has the classes "
                    f"{list_some(sorted(shared))} beside it: move it out of {top or 'that folder'}, or "
                    "rename it if it is a class"
                )


def refuse_splits_as_classes(classes: Collection[str], root: str) -> None:
    """Refuses classes that are all splits by their names, at a level or in folders that settings name.

    Raises:
        ConfigError: They are.
    """
    if split_names.has_splits(classes) and None not in map(split_names.kind_of, classes):
        raise ConfigError(
            f"{root}: the settings take {list_some(sorted(classes))} as classes, which are splits by their names: "
            "data.train_folders and data.val_folders name the folders in which the classes are"
        )
