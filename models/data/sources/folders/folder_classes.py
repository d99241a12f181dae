"""Which class each image of a user's tree is in: by folders, by tables, or by the names of images."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple, NoReturn

from conf import schema
from conf.text import list_some, logger
from infra.errors import ConfigError
from models.data.sources import listing, split_names, splits
from models.data.sources.class_remarks import describe_spellings, find_measurement
from models.data.sources.files.archive import Files
from models.data.sources.folders import layouts, missing_splits, nested
from models.data.sources.folders.levels import label_by_level, refuse_one_class
from models.data.sources.folders.name_labels import describe_command, read_known_names, read_names
from models.data.sources.folders.tree import NO_PICTURES, Tree, folders_below
from models.data.sources.listing import TRAIN
from models.data.sources.tables import csv_labels, reading, unread_labels
from models.data.sources.tables.annotations import describe_annotations
from models.data.sources.tables.image_names import names_one
from models.data.sources.tables.numbered_classes import (
    describe_deeper_numbers,
    read_numbered_labels,
    read_numbers_below,
)

log = logger()
_FEW_TABLES, _SEARCHED_BYTES = 20, 2**24  # of tables in the folder above
_CHUNK = re.compile(r"[0-9a-f]{1,3}")  # name of a folder that has some images of a large set, as 000 or 0/2/b
_TO_PREDICT = " (named as images to predict; data.train_folders=[.] takes all folders as classes)"
_NO_CLASSES = " (no file has their classes, so they are in no split)"


class Classes(NamedTuple):
    """The classes, and the class and the kind of split of each image if these are not those of its folders.

    ``place`` is what has them then, for messages; ``are_folders`` says whether the classes are those of folders,
    ``paths`` are the tables that have them otherwise, and ``said`` is a line about these.
    """

    names: list[str]
    labels: dict[str, str]
    kinds: Mapping[str, str]
    place: str
    are_folders: bool = True
    paths: Sequence[str] = ()
    said: str = ""


class Labels(NamedTuple):
    """What is known of the labels of images.

    Attributes:
        labels: The label of each image that has one.
        remarks: Remarks on parts and images without any.
        unlabelled: Parts and images that nobody labelled.
        paths: Tables that have labels of images in no folders of classes.
        said: A line about the tables of each part.
    """

    labels: dict[str, int]
    remarks: dict[str, str]
    unlabelled: Set[str] = frozenset()
    paths: Sequence[str] = ()
    said: Sequence[str] = ()


def find_classes(data: schema.Data, tree: Tree, parts: Mapping[str, int], images: Sequence[str], root: str) -> Classes:
    """Returns the classes of the parts: by folders, by tables or names of images, or by folders above the splits.

    Raises:
        ConfigError: There are none, or they can be read in two ways.
    """
    if data.class_level != 1 and data.label_field is None:
        by_level = label_by_level(images, parts, data.class_level, root)
        classes = sorted(set(by_level.values()))
        _refuse_undecodable(classes, root)
        missing_splits.refuse_splits_as_classes(classes, root)
        if len(classes) == 1 and not data.append and data.train_folders != [splits.WHOLE_TREE]:
            refuse_one_class(images, parts, data.class_level, root)
        return Classes(classes, by_level, {}, f"a folder at data.class_level={data.class_level}")
    folders, is_whole = _list_classes(tree, parts), parts == splits.WHOLE and not data.train_folders
    trains = [top for top, part in parts.items() if part == TRAIN]
    below = (name.removeprefix(top) for top in trains for name in images if name.startswith(top))
    are_beginnings = layouts.are_beginnings(below)
    if data.label_field is not None or len(folders) < 2 or layouts.are_parts(folders) or are_beginnings:
        stated, folders = _read_classes(data, tree, parts, folders)
        labels = stated.labels
        if labels:
            count, source = f"{len(labels):,}", stated.source
            said = f"the classes of {count} images are those of {source}"
            if stated.groups and data.group_level is None and set(parts.values()) == {TRAIN} and not stated.kinds:
                said += f"; {stated.groups}"
            return Classes(folders, labels, stated.kinds, "the CSV file", False, stated.paths, said)
    if data.train_folders == [splits.WHOLE_TREE]:
        return Classes(folders, {}, {}, "")
    held_out = [set(folders_below(tree, top)) for top, part in parts.items() if part != TRAIN]
    are_named = bool(data.train_folders or data.val_folders)
    are_stated = any(one >= set(folders) for one in held_out)
    if are_named:
        missing_splits.refuse_splits_as_classes(folders, root)
    else:
        missing_splits.refuse_splits_within(tree, trains, folders)
        missing_splits.refuse_divisions(tree, trains, folders)
        layouts.refuse_downloads(folders, tree.files.names, parts, root)
    layouts.refuse_parts(folders, parts, root, named=are_named, are_stated=are_stated)
    if are_beginnings and not are_named:
        layouts.refuse_beginnings(folders, parts, root)
    if not is_whole:
        return Classes(folders, {}, {}, "")
    labels, kinds = nested.read_splits_below(images, root)
    return Classes(
        folders if labels else nested.select_classes(nested.one_of_each_folder(images), folders, root),
        labels,
        kinds,
        "the folder of a class",
    )


def _list_classes(tree: Tree, parts: Mapping[str, int]) -> list[str]:
    classes = {name for top, part in parts.items() if part == TRAIN for name in folders_below(tree, top)}
    for top in parts:
        others = set(folders_below(tree, top))
        if others & classes:  # otherwise the folders of a held-out part are no classes
            classes |= others
    _refuse_undecodable(classes, tree.files.root)
    return sorted(classes)


def _refuse_undecodable(classes: Collection[str], root: str) -> None:
    for name in sorted(classes):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raw = os.fsencode(name)
            if _is_utf8(raw):
                raise ConfigError(
                    f"{root}: the class folder {raw.decode()} cannot be read in the locale's encoding, "
                    f"{sys.getfilesystemencoding()}: set LC_ALL=C.UTF-8, and unset PYTHONUTF8 and PYTHONCOERCECLOCALE"
                ) from error
            raise ConfigError(
                f"{root}: the class folder {raw!r} has a name that is not UTF-8; rename it, e.g. with "
                "convmv -f latin1 -t utf8 -r --notest FOLDER"
            ) from error


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_classes(
    data: schema.Data, tree: Tree, parts: Mapping[str, int], folders: list[str]
) -> tuple[csv_labels.Stated, list[str]]:
    """Returns what is stated of each image where the folders are no classes, and all classes.

    Tables have them, or else the names of the images.

    Raises:
        ConfigError: No table has classes of the images, or a single one.
    """
    images = [tree.top + name for name in tree.images if any(map(name.startswith, parts))]
    stated = csv_labels.read_classes(tree.files, images, data.label_field)
    source, none = stated.source, csv_labels.Stated({}, "", [])
    labels = {image.removeprefix(tree.top): label for image, label in stated.labels.items()}
    if not labels and len(folders) < 2 and data.label_field is None:
        train = tuple(top for top, part in parts.items() if part == TRAIN)
        labels, source = read_names([name for name in tree.images if name.startswith(train)]), "the names of the images"
        for top in parts.keys() - train:
            labels |= read_known_names([name for name in tree.images if name.startswith(top)], set(labels.values()))
    classes = sorted(set(labels.values()))
    if data.label_field is not None and not labels:
        raise ConfigError(
            f"{data.name} at {data.path}: no CSV file that names the images has a column {data.label_field!r}"
        )
    if not labels and len(folders) == 1 and parts == splits.WHOLE and not split_names.names_no_class(folders[0]):
        remedy = describe_command(images, tree.files.root)
        log.warning("%s: all images are of one class, %s%s", data.name, folders[0], remedy)
        return none, folders
    if not labels and len(folders) > 1:
        return none, folders
    if len(classes) < 2:
        _refuse_without_classes(data, tree, parts, folders, images)
    if measured := find_measurement(classes, len(labels)):
        raise ConfigError(
            f"{data.name} at {data.path}: {source} has {len(classes):,} different labels of {len(labels):,} images, as "
            f"{measured}, which are measurements rather than classes; data.label_field names another column"
        )
    if all(one.isdecimal() and one.isascii() for one in classes):
        classes.sort(key=int)
    kinds = {image.removeprefix(tree.top): kind for image, kind in stated.kinds.items()}
    return csv_labels.Stated(labels, source, stated.paths, kinds=kinds, groups=stated.groups), classes


def _refuse_without_classes(
    data: schema.Data, tree: Tree, parts: Mapping[str, int], folders: Sequence[str], images: Sequence[str]
) -> NoReturn:
    """Raises a ConfigError that names what may have the classes, and what to do."""
    place = tree.files.root if parts == splits.WHOLE else " and ".join(parts)
    what = "no folders of classes"
    if folders:
        no_class = split_names.names_no_class(folders[0])
        what = f"all images are in {folders[0]}/, {'which names no class' if no_class else 'the only class'}"
    known = [name for name, row in tree.images.items() if tree.formats.get(row) not in NO_PICTURES]
    shown = f"{len(known):,} images, first {min(known)}"
    others = describe_annotations(tree.files, known)
    others = others or unread_labels.describe_others(tree.files, known) or _describe_above(tree.files.root, known)
    remedy = (
        ""
        if others
        else _describe_level(tree, parts) or _describe_origin(tree, parts) or describe_command(images, tree.files.root)
    )
    raise ConfigError(
        f"{data.name} at {data.path}: {what} in {place} ({shown}), and no CSV file "
        f"has two or more classes of them{others}; expected CLASS/IMAGE, {{train,val}}/CLASS/IMAGE, or a CSV file "
        f"with the names of the images and their classes{remedy}"
    )


def _describe_level(tree: Tree, parts: Mapping[str, int]) -> str:
    """Returns the setting that takes the folders in a single one as the classes, as of ``train/images/ant``."""
    inside = [folders_below(tree, path) for top in parts for path in folders_below(tree, top).values()]
    if not inside or min(map(len, inside)) < 2:
        return ""
    return f"; data.class_level=2 takes the folders in it as classes, {list_some(sorted(inside[0]))}"


def _describe_above(root: str, images: Collection[str]) -> str:
    """Returns a remark on a table in the folder above that names the images; empty for none."""
    if root.startswith("s3://") or not Path(root).is_dir():
        return ""
    above = Path(root).resolve().parent
    for path in sorted(above.glob("*.csv"))[:_FEW_TABLES]:
        if path.is_file() and path.stat().st_size <= _SEARCHED_BYTES:
            text = reading.decode(path.read_bytes())
            if names_one(text, sorted(images)):
                return f" ({path} names some of them: data.path={above} reads tables there)"
    return ""


def _describe_origin(tree: Tree, parts: Mapping[str, int]) -> str:
    """Returns what to do with folders that are no splits, a tar of samples, or names with backslashes; else nothing."""
    tops = sorted({name.partition("/")[0] for name in tree.images if "/" in name})
    others = [top for top in tops if f"{top}/" not in parts]
    if parts != splits.WHOLE and others:
        taken = ", ".join(f"{top} as {listing.SPLITS[part]}" for top, part in parts.items())
        return (
            f"; by their names {taken} were taken, and not {', '.join(others[: listing.NAMED])}: data.train_folders "
            "and data.val_folders name others, and data.train_folders=[.] takes all folders as classes"
        )
    if not split_names.SHORT_WORDS.keys().isdisjoint(top.lower().rstrip("/") for top in parts):
        return "; data.train_folders=[.] takes all folders as classes"
    if any("\\" in name for name in tree.images):
        return "; names with backslashes are those of a Windows archive: give data.path the archive itself"
    samples = {name.rpartition(".")[0] for name in tree.images}
    if any(name.endswith((".cls", ".json")) and name.rpartition(".")[0] in samples for name in tree.files.names):
        made = ", as tar --sort=name -cf shard.tar -C FOLDER . makes one" * Path(tree.files.root).is_dir()
        return f"; data=webdataset reads shards, tars with NAME.jpg beside NAME.cls or NAME.json{made}"
    return ""


def _label_by_folders(tree: Tree, parts: Mapping[str, int], rank: Mapping[str, int]) -> Labels:
    """Returns the labels by the folders of classes, or tables beside flat parts; and a remark on parts without any."""
    known = Labels({}, {})
    for top in sorted(parts, key=lambda top: parts[top] != TRAIN):  # whose folders explain the numbers of the others
        folders = {path: rank[name] for name, path in folders_below(tree, top).items() if name in rank}
        inside = [name for name in tree.images if name.startswith(top)]
        for name in inside:
            depth = len(top)
            while (depth := name.find("/", depth) + 1) > 0:
                if (label := folders.get(name[:depth])) is not None:
                    known.labels[name] = label
                    break
        if top and any(name not in known.labels for name in inside):
            known = _label_flat(tree, top, known, rank, read_numbered_labels)
            others = sorted(folders_below(tree, top).keys() - rank.keys())
            if others and not folders and not known.remarks[top]:
                alike = describe_spellings(others, list(rank))
                shown = f"{', '.join(others[: listing.NAMED])} are none of the classes"
                known.remarks[top] = f" (its folders {alike or shown})" + missing_splits.describe_deeper(
                    tree, parts, top, rank
                )
    return known


def _label_flat(
    tree: Tree,
    top: str,
    known: Labels,
    rank: Mapping[str, int],
    read_numbers: Callable[[Files, Sequence[str], Mapping[str, str]], csv_labels.Stated],
) -> Labels:
    """Adds the labels by tables of those images of a part that are in no class folder, and a remark on the tables.

    Args:
        tree: The tree.
        top: The part.
        known: Labels by the folders of classes, which may explain numbers in the tables.
        rank: The label of each class.
        read_numbers: What reads numbers in the tables by the classes of images in folders.
    """
    without = [tree.top + name for name in tree.images if name.startswith(top) and name not in known.labels]
    stated = csv_labels.read_labels(tree.files, without, rank)
    remark = stated.remark
    if not stated.labels and remark:
        names = {label: name for name, label in rank.items()}
        folders = {tree.top + name: names[label] for name, label in known.labels.items()}
        stated = read_numbers(tree.files, without, folders)
        remark += "" if stated.labels else describe_deeper_numbers(tree.files, folders, len(rank))
    said = f"the classes of {len(stated.labels):,} images in {top} are those of {stated.source}"
    return known._replace(
        labels=known.labels | {name.removeprefix(tree.top): rank[label] for name, label in stated.labels.items()},
        remarks=known.remarks | {top: remark},
        paths=[*known.paths, *stated.paths],
        said=[*known.said, *([said] if stated.labels else [])],
    )


def label_images(tree: Tree, parts: Mapping[str, int], classes: Classes, *, explicit: bool) -> Labels:
    """Returns the label of each image that has one, remarks on parts and images without any, and those that lack it.

    The last are parts and images that nobody labelled: test folders of which no file in the tree may have the labels,
    images of a sample submission, and images in a folder that is named after unlabelled ones.

    Args:
        tree: The tree.
        parts: Its parts.
        classes: Its classes.
        explicit: Whether settings name the parts.
    """
    rank = {name: label for label, name in enumerate(classes.names)}
    known = Labels({name: rank[label] for name, label in classes.labels.items()}, {})
    if not known.labels:
        known = _label_by_folders(tree, parts, rank)
    elif classes.are_folders:  # at a level that settings name, which flat parts do not have
        for top, part in parts.items():
            if part != TRAIN and not any(name.startswith(top) for name in known.labels):
                known = _label_flat(tree, top, known, rank, read_numbers_below)
    if explicit:
        return known
    labels, remarks = known.labels, known.remarks
    unlabelled = {
        name
        for name in tree.images
        if "" in parts and name not in labels and split_names.names_unlabelled(name.partition("/")[0])
    }
    remarks |= dict.fromkeys(unlabelled, _TO_PREDICT)
    labelled = {top for top in parts if any(name.startswith(top) for name in labels)}
    for top, part in parts.items():
        if part == TRAIN or top in labelled:
            continue
        is_test = split_names.split_of(top) == "test" and all(
            split_names.holds_any_class(one) or (not classes.are_folders and _CHUNK.fullmatch(one.lower()))
            for one in folders_below(tree, top)
        )
        images = [tree.top + name for name in tree.images if name.startswith(top)]
        file = unread_labels.find_unused_table(tree.files, images) if is_test and not classes.labels else ""
        file = file or (unread_labels.find_unread_labels(tree.files, images) if is_test else "")
        if is_test and not file:  # as in sets of competitions
            unlabelled.add(top)
            remarks[top] = _NO_CLASSES
        else:
            hint = f" ({file} may have their classes and is not read)" if file else ""
            remarks[top] = (remarks.get(top) or hint) + splits.describe_without(parts, labelled)
    others = [tree.top + name for name in tree.images if name not in labels] if "" in parts and classes.labels else []
    of_train = [tree.top + name for name in labels]
    submitted = {name.removeprefix(tree.top) for name in unread_labels.list_submitted(tree.files, others, of_train)}
    remarks = remarks | dict.fromkeys(submitted, _NO_CLASSES)
    return known._replace(remarks=remarks, unlabelled=unlabelled | submitted)
