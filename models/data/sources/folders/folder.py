"""A user's images with one folder per class or a table of classes, as a tree or in one archive.

Every file that does not become a sample is counted by reason: in the log, in the manifest and in the
result. Files that could have been samples are refused if they are many (``unused.py``).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from conf import schema
from conf.text import list_some, logger
from infra.errors import ConfigError
from models.data.sources import listing, split_names, splits
from models.data.sources.class_remarks import (
    compare_classes,
    describe_labels,
    describe_masks,
    refuse_other_spellings,
    refuse_untrainable,
)
from models.data.sources.files import hidden, walk
from models.data.sources.files.archive import ARCHIVES
from models.data.sources.files.container import locate
from models.data.sources.files.image_format import EMPTY, OTHER_LFS, TEXT, UNKNOWN, describe_files
from models.data.sources.files.unread_formats import describe_unread
from models.data.sources.folders import missing_splits, nested
from models.data.sources.folders.folder_classes import Classes, Labels, find_classes, label_images
from models.data.sources.folders.layouts import describe_classes
from models.data.sources.folders.levels import describe_deeper, divide_groups
from models.data.sources.folders.packed import SUFFIXES, count_archives, describe_containers
from models.data.sources.folders.tree import (
    ARCHIVE,
    NO_IMAGES,
    NO_PICTURES,
    Tree,
    folders_below,
    formats_taken,
    open_tree,
)
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Listing, Source
from models.data.sources.tables import other_labels
from models.data.sources.tables.names_of_numbers import name_numbers
from models.data.sources.tables.reading import TABLES, describe_large
from models.data.sources.tables.split_columns import SplitLists
from models.data.sources.tables.split_lists import read_split_lists
from models.data.sources.tables.unread_labels import describe_yaml, find_tables_about
from models.data.sources.unused import Unused

log = logger()
_SEVERAL_WAYS = (
    "splits are drawn: the tables divide some images in several ways; keep those of one division, named train, val and "
    "test, or with one number"
)


def open_folder(data: schema.Data, official: Mapping[str, Sequence[str]] | None = None) -> Source:
    """Opens ``CLASS/**/IMAGE``, or ``train/CLASS/**/IMAGE`` beside held-out folders; label = rank of the class name.

    Common top folders are skipped. Held-out folders may contain images without class folders if a table beside them
    has their labels, and so may train: then the classes are those of the table (``csv_labels.py``).

    Args:
        data: Settings.
        official: Names of lists that only an official set has, by the value of ``data`` that reads the set with them.

    Raises:
        ConfigError: No path, no images in it, fewer than two classes, a class name that is not UTF-8, or many files
            that cannot be used.
        DataError: An archive is damaged.
    """
    if data.path is None:
        raise ConfigError("data=folder needs data.path=/path/to/images (CLASS/IMAGE or {train,val}/CLASS/IMAGE)")
    root = locate(data.path)
    tree = open_tree(root, data)
    hints = [_describe_official(tree.files.names, official or {}), describe_large(tree.files), _describe_pointer(tree)]
    if not (data.train_folders or data.val_folders):
        hints.append(describe_yaml(tree.files))
    hint = "; ".join(filter(None, hints))
    try:
        if data.is_only_val:
            every = dataclasses.replace(data, train_folders=[splits.WHOLE_TREE], val_folders=[])
            source = _as_val(_read_tree(every, tree, root))
        else:
            source = _read_tree(data, tree, root)
    except ConfigError as error:
        raise ConfigError(f"{error}{hint and f'; {hint}'}") from error
    for line in filter(None, (hint, *source.class_differences, *source.unused)):
        log.warning("%s: %s", data.name, line)
    return source


def _as_val(source: Source) -> Source:
    """Returns a source whose images are all val."""
    digest = hashlib.sha256(f"val {source.digest}".encode()).hexdigest()
    return dataclasses.replace(source, split=np.full_like(source.split, VAL), own_val=True, digest=digest)


def _describe_official(names: Sequence[str], official: Mapping[str, Sequence[str]]) -> str:
    """Returns the setting that reads a tree by the lists in it; empty if it has no list of an official set."""
    sources = {one: source for source, lists in official.items() for one in lists}
    ends = {one.rpartition("/")[2] for one in sources}
    for name in names:
        if name.rpartition("/")[2] in ends:
            for one, source in sources.items():
                if f"/{name}".endswith(f"/{one}"):
                    return f"data={source} reads the official set by its lists"
    return ""


def _describe_pointer(tree: Tree) -> str:
    """Returns a remark on the first table or archive that is a pointer of Git LFS to it; empty for none."""
    names = [tree.files.names[row] for row, kind in tree.formats.items() if kind == OTHER_LFS]
    first = min((name for name in names if name.lower().endswith((*TABLES, *SUFFIXES))), default="")
    what = "table" if first.lower().endswith(TABLES) else "archive"
    return f"{first} is a Git LFS pointer and not the {what}: git lfs pull fetches it" if first else ""


def _read_tree(data: schema.Data, tree: Tree, root: str) -> Source:
    """Returns the images of a tree with classes and splits; raises ConfigError as ``open_folder``."""
    unused = Unused()
    if all(tree.formats.get(row) in NO_PICTURES for row in tree.images.values()):
        _count_others(tree, Listing(tree.files, ()), unused)
        raise ConfigError(_describe_contents(tree, root, unused))
    pictures = [name for name, row in tree.images.items() if tree.formats.get(row) not in NO_PICTURES]
    parts = splits.find_splits(pictures, root, data, tree.top)
    classes = find_classes(data, tree, parts, pictures, root)
    tops, trains = parts, [top for top, part in parts.items() if part == TRAIN]
    entries = Listing(tree.files, classes.names)
    known = _add_images(data, tree, parts, entries, unused, classes)
    unnamed, paths = _name_classes(tree, entries)
    inside = _describe_inside(data, tree, parts, pictures, classes, entries)
    stated, paths = tuple(filter(None, (classes.said, *known.said))), {*paths, *classes.paths, *known.paths}
    if set(entries.split) <= {TRAIN} and data.train_folders != [splits.WHOLE_TREE]:  # held-out folders may lack labels
        lists, parts = _divide_by_lists(data, tree, entries, parts, classes, unused)
        stated, paths = (*stated, *filter(None, (lists.said,))), paths | set(lists.paths)
    if not entries.rows:
        raise ConfigError(_describe_contents(tree, root, unused))
    if set(entries.split) == {TRAIN} and parts != splits.WHOLE and not (data.train_folders or data.val_folders):
        stated = (*stated, *missing_splits.find_lost_splits(tree, unused))
    if data.group_level is not None:
        stated = (*stated, divide_groups(entries, data, tops))
        parts = {listing.SPLITS[part]: part for part in sorted(set(entries.split))}
    deeper = describe_deeper(entries, data, tops)
    remarks = (*stated, *deeper, *inside, *describe_masks(entries.names), *describe_labels(entries.classes), *unnamed)
    parts = _without_unlabelled(parts, entries)
    # The splits may be below the classes; tables have classes of images in any folder.
    places = tops if not classes.labels else splits.WHOLE if classes.are_folders else ()
    _count_others(tree, entries, unused, places, paths)
    lost = unused.lost_in([f"{above}{top}" for top in trains for above in {"", tree.top}])
    if not lost and not data.append:
        refuse_untrainable(entries, parts, root, lost)  # before files elsewhere, as the masks of MVTec AD
    unused.check(data, len(entries.rows))
    if lost and not data.append:
        refuse_untrainable(entries, parts, root, lost)
    refuse_other_spellings(data, entries)
    source = dataclasses.replace(
        entries.source(()), unused=unused.lines(), class_differences=(*compare_classes(entries, parts), *remarks)
    )
    if tree.top:
        log.info("%s: the top folder is %s", data.name, tree.top)
    if parts != splits.WHOLE:
        log.info("%s: %s", data.name, ", ".join(f"{top} is {listing.SPLITS[part]}" for top, part in parts.items()))
    return source


def _name_classes(tree: Tree, entries: Listing) -> tuple[tuple[str, ...], set[str]]:
    """Gives numbered classes the names that a list in the tree has, in the order of the numbers.

    Returns:
        A remark on the list, or on one that does not fit, and the list if its names are taken.
    """
    names, said, path = name_numbers(tree.files, entries.classes)
    if not names:
        return (said,) if said else (), set()
    rank = {number: label for label, number in enumerate(names)}
    entries.labels = [rank[entries.classes[label]] for label in entries.labels]
    entries.classes = list(names.values())
    return (said,), {path}


def _describe_inside(
    data: schema.Data, tree: Tree, parts: dict[str, int], pictures: Sequence[str], classes: Classes, entries: Listing
) -> tuple[str, ...]:
    """Returns a remark on what lies below the folders of the classes in train.

    Args:
        data: Settings.
        tree: The tree.
        parts: Its parts.
        pictures: Paths of its images.
        classes: Its classes.
        entries: The images with their classes.

    Raises:
        ConfigError: That may be the classes, or annotations state other ones.
    """
    trains = [] if classes.labels else [top for top, part in parts.items() if part == TRAIN]
    folders = [path for top in trains for path in folders_below(tree, top).values()]
    inside = nested.group_by_class(nested.one_of_each_folder(pictures), folders)
    if data.group_level is not None and nested.are_at_level(inside, data.group_level):
        inside = {}  # the groups of each class, as its patients
    shared = nested.describe_shared(inside, pictures if parts == splits.WHOLE and not data.train_folders else ())
    if data.train_folders:
        return shared or nested.describe_nested(inside, data.group_level)
    if shared and parts == splits.WHOLE:
        raise ConfigError(f"{tree.files.root}: {shared[0]}")
    nested.refuse_initials(inside, tree.files.root)
    nested.refuse_copies(inside, tree.files.root)
    others: tuple[str, ...] = ()
    if classes.are_folders:
        other_labels.refuse_other_categories(tree.files, entries, tree.top)
        others = other_labels.describe_other_labels(
            tree.files, entries, tree.top, describe_classes(parts), is_part=bool(data.append)
        )
    return (*others, *(shared or nested.describe_nested(inside, data.group_level)))


def _divide_by_lists(
    data: schema.Data, tree: Tree, entries: Listing, parts: dict[str, int], classes: Classes, unused: Unused
) -> tuple[SplitLists, dict[str, int]]:
    """Gives the images the splits that tables or lists state; counts those that no list names.

    Args:
        data: Settings.
        tree: The tree.
        entries: The images, whose splits are replaced.
        parts: Folders of train.
        classes: The classes, with the splits of the tables that have them.
        unused: What receives the images that no list names.

    Returns:
        The lists, and the parts by kind, or those of the folders without any.
    """
    kinds: Mapping[str, str] = classes.kinds
    are_stated = "" not in kinds.values() and kinds.keys() >= set(entries.names)
    by_kind = splits.number_kinds(set(kinds.values())) if are_stated else {}
    lists = SplitLists({}, "")
    if not by_kind and (classes.are_folders or set(kinds.values()) <= {"train"} or "" in kinds.values()):
        images = [tree.top + name for name in entries.names]
        several = _SEVERAL_WAYS if "" in kinds.values() else ""
        held_out = {str(split_names.split_of(top)) for top, part in parts.items() if part != TRAIN}
        lists = _read_lists(tree, images, entries.labels, data, held_out)
        lists = lists._replace(said=lists.said or several)
        kinds = {image.removeprefix(tree.top): kind for image, kind in lists.kinds.items()}
        by_kind = splits.number_kinds(set(kinds.values()))
    if not by_kind:
        return lists, parts
    for name in entries.names:
        if name not in kinds:
            unused.add("images that no list of a split names", name)
    entries.keep([row for row, name in enumerate(entries.names) if name in kinds])
    entries.split = [by_kind[kinds[name]] for name in entries.names]
    return lists, by_kind


def _read_lists(
    tree: Tree, images: Sequence[str], labels: Sequence[int], data: schema.Data, held_out: Collection[str]
) -> SplitLists:
    """Returns the split of each image by the lists in a tree, as ``read_split_lists``.

    Where settings name the folders of train, lists that would be refused are not read, which the line says.
    """
    try:
        return read_split_lists(tree.files, images, labels, data, held_out)
    except ConfigError as error:
        if not data.train_folders:
            raise
        return SplitLists({}, f"splits are drawn, not those of lists: {error}")


def _add_images(
    data: schema.Data, tree: Tree, parts: dict[str, int], entries: Listing, unused: Unused, classes: Classes
) -> Labels:
    """Adds the images of the parts to the listing, and counts those that are in no class or have another format.

    Returns what is known of their labels.

    Args:
        data: Settings, of which ``convert`` and the folders of the splits count.
        tree: The tree.
        parts: Its parts.
        entries: Listing that receives the images.
        unused: What receives the others.
        classes: Its classes.
    """
    explicit = bool(data.train_folders or data.val_folders)
    taken = formats_taken(data)
    known = label_images(tree, parts, classes, explicit=explicit)
    labels, remarks, unlabelled = known.labels, known.remarks, known.unlabelled
    linked = set() if explicit else missing_splits.find_linked(tree, parts)
    other = missing_splits.find_beside(tree, parts, classes.names)
    if other and all(name in linked for name in tree.images if name.startswith(other)):
        other = ""
    beside = missing_splits.describe_beside(other, parts)
    for name, row in tree.images.items():
        kind = tree.format_of(row)
        part = next((top for top in parts if name.startswith(top)), None)
        if kind not in taken:
            unused.add(describe_unread(kind, name), name)
        elif part is None and explicit:
            reason = "images in folders that neither data.train_folders nor data.val_folders name"
            unused.add(reason, name, could_be_sample=False)
        elif name in linked:
            unused.add("images that are used through links to them", name, could_be_sample=False)
        elif part is None:
            could_be = not split_names.is_unlabelled(name.partition("/")[0])  # otherwise nobody knows their classes
            unused.add(f"images in folders that are no split{beside}", name, could_be_sample=could_be)
        elif name not in labels:
            place = f"without a label in {part or classes.place}" if part or classes.labels else "in no class folder"
            remark = remarks.get(name) or remarks.get(part, "")
            could_be = unlabelled.isdisjoint((part, name))
            unused.add(f"images {place}{remark}", name, could_be_sample=could_be)
        else:
            entries.add(row, name, labels[name], parts[part])
    present = {top for top in parts if any(name.startswith(top) for name in entries.names)}
    unused.whole += [other] if other and not explicit else []
    unused.whole += [top for top, part in parts.items() if part != TRAIN and top not in present | unlabelled]
    return known


def _without_unlabelled(parts: dict[str, int], entries: Listing) -> dict[str, int]:
    """Returns the parts that have labelled images; if the test folder has none, the val folder becomes val."""
    present = set(entries.split)
    kept = {top: part for top, part in parts.items() if part in present}
    if MINIVAL in present and VAL not in present:
        entries.split = [VAL if part == MINIVAL else part for part in entries.split]
        return {top: VAL if part == MINIVAL else part for top, part in kept.items()}
    return kept


def _count_others(
    tree: Tree, entries: Listing, unused: Unused, parts: Collection[str] = (), read: Collection[str] = ()
) -> None:
    """Counts what is no image, and names the classes that have none.

    Args:
        tree: The tree.
        entries: The images.
        unused: What receives the others.
        parts: Those that have the folders of classes.
        read: Tables and lists that are used.
    """
    about = set(find_tables_about(tree.files, [tree.top + name for name in tree.images])) - set(read)
    named = f" ({list_some(sorted(about))})" if len(about) > 1 else ""
    tables = f"tables that name images or their folders and are not used{named}"
    archives = [name for row, name in enumerate(tree.files.names) if tree.formats.get(row) == ARCHIVE]
    count_archives(tree.files, archives, [tree.top + part for part in parts], unused)
    for row, name in enumerate(tree.files.names):
        if tree.formats.get(row) == ARCHIVE:
            continue
        if tree.formats.get(row) in NO_IMAGES and name not in read:
            unused.add(tables if name in about else "files that are no images", name, could_be_sample=False)
        elif name in read:
            continue
        elif not entries.rows and (kind := tree.formats.get(row, "")) in NO_PICTURES:
            unused.add("files of unknown format" if kind == UNKNOWN else describe_files(kind), name)
        elif name in tree.excluded:
            unused.add(tree.excluded[name], name, could_be_sample=False)
        elif not name.startswith(tree.top) and tree.formats.get(row) in NO_PICTURES:
            unused.add(f"files of other formats outside {tree.top}", name, could_be_sample=False)  # e.g. annotations
        elif not name.startswith(tree.top):
            unused.add(f"images outside {tree.top}", name)
    for name, reason in tree.files.skipped:
        could_be = reason not in (hidden.HIDDEN, hidden.HIDDEN_FOLDERS, walk.EMPTY_FOLDER)
        unused.add(reason, name, could_be_sample=could_be)
    used = set(entries.labels)
    for label, name in enumerate(entries.classes):
        if label not in used:
            unused.add("classes without images", name, could_be_sample=False)


def _describe_contents(tree: Tree, root: str, unused: Unused) -> str:
    by_name = {name: tree.formats.get(row, "") for row, name in enumerate(tree.files.names)}
    archives = {name: kind for name, kind in by_name.items() if name.lower().endswith(ARCHIVES)}
    packed = [name for name, kind in archives.items() if kind == ARCHIVE]
    broken = [name for name, kind in archives.items() if kind in (TEXT, EMPTY)]
    is_folder = root.startswith("s3://") or Path(root).is_dir()
    what_to_do = "which data.path may name" if is_folder else "which must be unpacked"
    remedy = f"; it contains the archive {packed[0]}, {what_to_do}" if packed else ""
    if len(packed) > 1:
        remedy = f"; it contains {len(packed):,} archives, first {min(packed)}: unpack them"
        remedy += ", or take data=webdataset if they are shards of samples" * min(packed).lower().endswith(".tar")
    first = {name.partition("/")[0] for name in (*tree.files.names, *tree.folders)}
    seen = ", ".join(sorted(first)[: listing.NAMED]) or "nothing"
    lines = "".join(f"; {line}" for line in unused.lines())
    if broken and not remedy:
        remedy = f"; {min(broken)} is {archives[min(broken)]} and no archive: download it again"
    remedy = remedy or describe_containers(tree.files)
    return f"no usable images in {root}/CLASS/; its top folder contains {seen}{lines}{remedy}"
