"""A user's images with one folder per class or a table of classes, as a tree or in one archive.

Every file that does not become a sample is counted by reason: in the log, in the manifest and in the
result. Files that could have been samples are refused if they are many (``unused.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conf import schema
from conf.text import logger
from infra.errors import ConfigError
from models.data.sources import archive, csv_labels, listing, splits
from models.data.sources.archive import ARCHIVES, Files
from models.data.sources.class_remarks import compare_classes, describe_combined, describe_masks
from models.data.sources.container import locate
from models.data.sources.image_format import (
    CONVERTIBLE,
    DECODED,
    EMPTY,
    HEAD_BYTES,
    PACKED,
    SVG,
    TEXT,
    UNKNOWN,
    identify_format,
    is_image_name,
)
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Listing, Source
from models.data.sources.name_labels import read_names
from models.data.sources.packed import SUFFIXES, count_archives, find_copies
from models.data.sources.unused import Unused

log = logger()
_ARCHIVE = "archive"  # of the suffix of one
_NO_IMAGES = (*PACKED, _ARCHIVE, "PDF", "Parquet", "HDF5", TEXT, EMPTY)  # formats of files that accompany images
_NO_PICTURES = (UNKNOWN, "video", "NumPy")  # formats of files whose folders are therefore no classes
_SNIFF_THREADS = 16


@dataclass(frozen=True)
class _Tree:
    """A user's files below their common top folder: path and row of those with an image format, and formats by row.

    ``copies`` are images in folders that repeat the others, which are excluded.
    """

    files: Files
    images: dict[str, int]
    formats: dict[int, str]
    folders: frozenset[str]
    top: str
    copies: frozenset[str] = frozenset()


def open_folder(data: schema.Data) -> Source:
    """Opens ``CLASS/**/IMAGE``, or ``train/CLASS/**/IMAGE`` beside held-out folders; label = rank of the class name.

    Common top folders are skipped. Held-out folders may contain images without class folders if a table beside them
    has their labels, and so may train: then the classes are those of the table (``csv_labels.py``).

    Raises:
        ConfigError: No path, no images in it, fewer than two classes, a class name that is not UTF-8, or many files
            that cannot be used.
        DataError: An archive is damaged.
    """
    if data.path is None:
        raise ConfigError("data=folder needs data.path=/path/to/images (CLASS/IMAGE or {train,val}/CLASS/IMAGE)")
    root = locate(data.path)
    tree = _open_tree(root, explicit=bool(data.train_folders or data.val_folders))
    unused = Unused()
    if all(tree.formats.get(row) == UNKNOWN for row in tree.images.values()):
        _count_others(tree, Listing(tree.files, ()), unused)
        raise ConfigError(_describe_contents(tree, root, unused))
    pictures = [name for name, row in tree.images.items() if tree.formats.get(row) not in _NO_PICTURES]
    parts = splits.find_splits(pictures, root, data, tree.top)
    classes = _list_classes(tree, parts)
    labels: dict[str, str] = {}
    kinds: dict[str, str] = {}
    if data.label_field is not None or len(classes) < 2 or splits.are_parts(classes):
        labels, classes, kinds = _read_classes(data, tree, parts, classes)
    if not labels and data.train_folders != [splits.WHOLE_TREE]:
        held_out = [set(_classes_below(tree, top)) for top, part in parts.items() if part != TRAIN]
        are_named = bool(data.train_folders or data.val_folders)
        are_stated = any(one >= set(classes) for one in held_out)
        splits.refuse_parts(classes, parts, root, named=are_named, are_stated=are_stated)
    entries = Listing(tree.files, classes)
    _add_images(data, tree, parts, entries, unused, labels)
    by_table = splits.number_kinds(set(kinds.values())) if labels.keys() <= kinds.keys() else {}
    if by_table and parts == splits.WHOLE and not data.train_folders:
        parts = by_table
        entries.split = [parts[kinds[name]] for name in entries.names]
    if not entries.rows:
        raise ConfigError(_describe_contents(tree, root, unused))
    folders = () if labels else [path for top in parts for path in _classes_below(tree, top).values()]
    shared = splits.describe_shared(tree.images, folders)
    if shared and parts == splits.WHOLE and not data.train_folders:
        raise ConfigError(f"{root}: {shared[0]}")
    remarks = (*shared, *describe_masks(entries.names), *describe_combined(classes))
    parts = _without_unlabelled(parts, entries)
    _count_others(tree, entries, unused, () if labels else parts)
    unused.check(data, len(entries.rows))
    source = dataclasses.replace(
        entries.source(()), unused=unused.lines(), class_differences=(*compare_classes(entries, parts), *remarks)
    )
    if tree.top:
        log.info("%s: the top folder is %s", data.name, tree.top)
    if parts != splits.WHOLE:
        log.info("%s: %s", data.name, ", ".join(f"{top} is {listing.SPLITS[part]}" for top, part in parts.items()))
    for line in (*source.class_differences, *source.unused):
        log.warning("%s: %s", data.name, line)
    return source


def _open_tree(root: str, *, explicit: bool) -> _Tree:
    """Lists a tree; without ``explicit`` folders of splits, those that repeat the others are excluded."""
    files = archive.open_own(root)
    formats = _identify(files)
    images = {name: row for row, name in enumerate(files.names) if formats.get(row) not in _NO_IMAGES}
    pictures = [name for name, row in images.items() if formats.get(row) not in _NO_PICTURES]
    top = _common_top(pictures or images)
    below_top = {} if explicit else {name.removeprefix(top): images[name] for name in pictures if name.startswith(top)}
    copies = frozenset(top + name for name in find_copies(files, below_top))
    if copies:
        images = {name: row for name, row in images.items() if name not in copies}
        pictures = [name for name in pictures if name not in copies]
        top = _common_top(pictures)
    below = {name.removeprefix(top): row for name, row in images.items() if name.startswith(top)}
    folders = {
        name.rsplit("/", up)[0]
        for name in (name.removeprefix(top) for name in pictures or images if name.startswith(top))
        for up in range(1, name.count("/") + 1)
    }
    empty = {name[:-1] for name, why in files.skipped if why == archive.EMPTY_FOLDER}
    _refuse_empty_train(root, top, empty)
    empty = {name.removeprefix(top) for name in empty if name.startswith(top)}
    return _Tree(files, below, formats, frozenset(folders | empty), top, copies)


def _refuse_empty_train(root: str, top: str, empty: Collection[str]) -> None:
    """Refuses a tree of which all images are in a held-out folder, beside an empty one of train."""
    above, _, held_out = top.rstrip("/").rpartition("/")
    if splits.kind_of(held_out) in (None, "train"):
        return
    for name in sorted(empty):
        parent, _, word = name.rpartition("/")
        if parent == above and splits.kind_of(word) == "train":
            raise ConfigError(f"{root}: {name}/ is empty, all images are in {top}; nothing can be trained on")


def _identify(files: Files) -> dict[int, str]:
    """Returns the formats of the files whose suffix is not that of JPEG or PNG, from their first bytes."""
    rows = [row for row, name in enumerate(files.names) if not is_image_name(name)]
    heads = dataclasses.replace(files, sizes=np.minimum(files.sizes, HEAD_BYTES)).reader(rows)
    with ThreadPoolExecutor(_SNIFF_THREADS, thread_name_prefix="format") as pool:
        kinds = dict(zip(rows, map(identify_format, pool.map(heads, range(len(rows)))), strict=True))
    return {row: _with_suffix(kind, files.names[row].lower()) for row, kind in kinds.items()}


def _with_suffix(kind: str, name: str) -> str:
    """Returns the format of a file whose first bytes do not tell it: archives are tars or packed, SVG is text."""
    if kind == TEXT and name.endswith(".svg"):
        return SVG
    return _ARCHIVE if kind in (*PACKED, UNKNOWN) and name.endswith(SUFFIXES) else kind


def _common_top(names: Collection[str]) -> str:
    """Returns the folder, with a final slash, that all images are below but for a few beside it or directly in it.

    A single class is not skipped, nor is train, whose name is needed, unless it holds the splits, as
    ``train_val/{train,val}/CLASS``.
    """
    top, below = "", list(names)
    above_train: str | None = None
    while True:
        firsts = {name.partition("/")[0] for name in below if "/" in name}
        stray = sum(name.count("/") < 2 for name in below)
        if len(firsts) != 1 or stray > splits.STRAY_SHARE * len(below):
            return top if above_train is None or splits.has_splits(firsts) else above_train
        first = firsts.pop()
        if above_train is None and splits.kind_of(first) == "train":
            above_train = top
        top += f"{first}/"
        below = [name.removeprefix(f"{first}/") for name in below if name.startswith(f"{first}/")]


def _classes_below(tree: _Tree, part: str) -> dict[str, str]:
    """Returns the class folders of a part, name -> path with a final slash; a doubled split folder is skipped."""
    inside = [name for name in tree.images if name.startswith(part)]
    if part and all(name.startswith(part + part) for name in inside):
        part += part
    folders = {one.removeprefix(part) for one in tree.folders if one.startswith(part)}
    return {one: f"{part}{one}/" for one in folders if one and "/" not in one}


def _list_classes(tree: _Tree, parts: dict[str, int]) -> list[str]:
    classes = {name for top, part in parts.items() if part == TRAIN for name in _classes_below(tree, top)}
    for top in parts:
        others = set(_classes_below(tree, top))
        if others & classes:  # otherwise the folders of a held-out part are no classes
            classes |= others
    for name in sorted(classes):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"{tree.files.root}: the class folder {name.encode(errors='surrogateescape')!r} has a name that is not "
                "UTF-8; rename it, e.g. with convmv -f latin1 -t utf8 -r --notest FOLDER"
            ) from error
    return sorted(classes)


def _read_classes(
    data: schema.Data, tree: _Tree, parts: dict[str, int], folders: list[str]
) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """Returns the class of each image where the folders are no classes, all classes, and the split of each image.

    Tables have them, or else the names of the images.

    Raises:
        ConfigError: No table has classes of the images, or a single one.
    """
    images = [tree.top + name for name in tree.images if any(map(name.startswith, parts))]
    stated, source, kinds = csv_labels.read_classes(tree.files, images, data.label_field)
    labels = {image.removeprefix(tree.top): label for image, label in stated.items()}
    if not labels and len(folders) < 2 and data.label_field is None:
        train = tuple(top for top, part in parts.items() if part == TRAIN)
        labels, source = read_names([name for name in tree.images if name.startswith(train)]), "the names of the images"
    classes = sorted(set(labels.values()))
    if data.label_field is not None and not labels:
        raise ConfigError(
            f"{data.name} at {data.path}: no CSV file that names the images has a column {data.label_field!r}"
        )
    if not labels and len(folders) == 1 and parts == splits.WHOLE and not splits.names_no_class(folders[0]):
        log.warning("%s: all images are of one class, %s", data.name, folders[0])
        return {}, folders, {}
    if not labels and len(folders) > 1:
        return {}, folders, {}
    if len(classes) < 2:
        place = tree.files.root if parts == splits.WHOLE else " and ".join(parts)
        what = "no folders of classes"
        if folders:
            no_class = splits.names_no_class(folders[0])
            what = f"all images are in {folders[0]}/, {'which names no class' if no_class else 'the only class'}"
        known = [name for name, row in tree.images.items() if tree.formats.get(row) != UNKNOWN]
        shown = f"{len(known):,} images, first {min(known)}"
        others = csv_labels.describe_others(tree.files, known)
        raise ConfigError(
            f"{data.name} at {data.path}: {what} in {place} ({shown}), and no CSV file "
            f"has two or more classes of them{others}; expected CLASS/IMAGE, {{train,val}}/CLASS/IMAGE, or a CSV file "
            f"with the names of the images and their classes{_describe_origin(tree, parts)}"
        )
    if all(one.isdecimal() and one.isascii() for one in classes):
        classes.sort(key=int)
    log.info("%s: the classes of %s images are those of %s", data.name, f"{len(labels):,}", source)
    return labels, classes, {image.removeprefix(tree.top): kind for image, kind in kinds.items()}


def _describe_origin(tree: _Tree, parts: dict[str, int]) -> str:
    """Returns what to do with folders that are no splits, a tar of samples, or names with backslashes; else nothing."""
    tops = sorted({name.partition("/")[0] for name in tree.images if "/" in name})
    others = [top for top in tops if f"{top}/" not in parts]
    if parts != splits.WHOLE and others:
        taken = ", ".join(f"{top} as {listing.SPLITS[part]}" for top, part in parts.items())
        return (
            f"; by their names {taken} were taken, and not {', '.join(others[: listing.NAMED])}: data.train_folders "
            "and data.val_folders name others, and data.train_folders=[.] takes all folders as classes"
        )
    if any("\\" in name for name in tree.images):
        return "; names with backslashes are those of a Windows archive: give data.path the archive itself"
    samples = {name.rpartition(".")[0] for name in tree.images}
    if any(name.endswith((".cls", ".json")) and name.rpartition(".")[0] in samples for name in tree.files.names):
        return "; data=webdataset reads shards, which have NAME.jpg beside NAME.cls or NAME.json"
    return ""


def _label_by_folders(
    tree: _Tree, parts: dict[str, int], rank: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, str]]:
    """Returns the labels by the folders of classes, or tables beside flat parts; and a remark on parts without any."""
    labels: dict[str, int] = {}
    remarks: dict[str, str] = {}
    for top in parts:
        folders = {path: rank[name] for name, path in _classes_below(tree, top).items() if name in rank}
        inside = [name for name in tree.images if name.startswith(top)]
        for name in inside:
            depth = len(top)
            while (depth := name.find("/", depth) + 1) > 0:
                if (label := folders.get(name[:depth])) is not None:
                    labels[name] = label
                    break
        if top and (flat := [name for name in inside if name not in labels]):
            known, remarks[top] = csv_labels.read_labels(tree.files, [tree.top + name for name in flat], rank)
            labels |= {name.removeprefix(tree.top): rank[label] for name, label in known.items()}
            others = sorted(_classes_below(tree, top).keys() - rank.keys())
            if others and not folders and not remarks[top]:
                remarks[top] = f" (its folders {', '.join(others[: listing.NAMED])} are none of the classes)"
    return labels, remarks


def _add_images(
    data: schema.Data, tree: _Tree, parts: dict[str, int], entries: Listing, unused: Unused, stated: dict[str, str]
) -> None:
    """Adds the images of the parts to the listing, and counts those that are in no class or have another format.

    Args:
        data: Settings, of which ``convert`` and the folders of the splits count.
        tree: The tree.
        parts: Its parts.
        entries: Listing that receives the images.
        unused: What receives the others.
        stated: Classes by image, if tables have them; otherwise the folders are the classes.
    """
    explicit = bool(data.train_folders or data.val_folders)
    rank = {name: label for label, name in enumerate(entries.classes)}
    taken = (*DECODED, *CONVERTIBLE) if data.convert else DECODED
    labels = {name: rank[label] for name, label in stated.items()}
    remarks: dict[str, str] = {}
    if not stated:
        labels, remarks = _label_by_folders(tree, parts, rank)
    for top in parts if not explicit else ():
        if parts[top] != TRAIN and not any(name.startswith(top) for name in labels):
            remarks[top] = remarks.get(top) or splits.describe_without(parts)
    for name, row in tree.images.items():
        kind = tree.formats.get(row, DECODED[0])
        part = next((top for top in parts if name.startswith(top)), None)
        if kind not in taken:
            remedy = " (data.convert=true converts them to PNG)" if kind in CONVERTIBLE else ""
            unused.add(f"{kind} files{remedy}", name)
        elif part is None and explicit:
            reason = "images in folders that neither data.train_folders nor data.val_folders name"
            unused.add(reason, name, could_be_sample=False)
        elif part is None:
            could_be = not splits.is_unlabelled(name.partition("/")[0])  # otherwise nobody knows their classes
            unused.add("images in folders that are no split", name, could_be_sample=could_be)
        elif name not in labels:
            place = f"without a label in {part or 'the CSV file'}" if part or stated else "in no class folder"
            unused.add(f"images {place}{remarks.get(part, '')}", name)
        else:
            entries.add(row, name, labels[name], parts[part])


def _without_unlabelled(parts: dict[str, int], entries: Listing) -> dict[str, int]:
    """Returns the parts that have labelled images; if the test folder has none, the val folder becomes val."""
    present = set(entries.split)
    if MINIVAL in present and VAL not in present:
        entries.split = [VAL if part == MINIVAL else part for part in entries.split]
        return {top: VAL if part == MINIVAL else part for top, part in parts.items() if part != VAL}
    return {top: part for top, part in parts.items() if part in present}


def _count_others(tree: _Tree, entries: Listing, unused: Unused, parts: Collection[str] = ()) -> None:
    """Counts what is no image, and names the classes that have none; the folders of classes are those of the parts."""
    archives = [name for row, name in enumerate(tree.files.names) if tree.formats.get(row) == _ARCHIVE]
    count_archives(tree.files, archives, [tree.top + part for part in parts], unused)
    for row, name in enumerate(tree.files.names):
        if tree.formats.get(row) == _ARCHIVE:
            continue
        if tree.formats.get(row) in _NO_IMAGES:
            unused.add("files that are no images", name, could_be_sample=False)
        elif not entries.rows and tree.formats.get(row) == UNKNOWN:
            unused.add("files of unknown format", name)
        elif name in tree.copies:
            unused.add("images in folders that repeat the others by names and sizes", name, could_be_sample=False)
        elif not name.startswith(tree.top) and tree.formats.get(row) in _NO_PICTURES:
            unused.add(f"files of other formats outside {tree.top}", name, could_be_sample=False)  # e.g. annotations
        elif not name.startswith(tree.top):
            unused.add(f"images outside {tree.top}", name)
    for name, reason in tree.files.skipped:
        could_be = reason not in (archive.HIDDEN, archive.EMPTY_FOLDER)
        unused.add(reason, name, could_be_sample=could_be)
    used = set(entries.labels)
    for label, name in enumerate(entries.classes):
        if label not in used:
            unused.add("classes without images", name, could_be_sample=False)


def _describe_contents(tree: _Tree, root: str, unused: Unused) -> str:
    packed = [name for name in tree.files.names if name.lower().endswith(ARCHIVES)]
    is_folder = root.startswith("s3://") or Path(root).is_dir()
    what_to_do = "which data.path may name" if is_folder else "which must be unpacked"
    remedy = f"; it contains the archive {packed[0]}, {what_to_do}" if packed else ""
    if len(packed) > 1:
        remedy = f"; it contains {len(packed):,} archives, first {min(packed)}: unpack them"
        remedy += ", or take data=webdataset if they are shards of samples" * min(packed).lower().endswith(".tar")
    first = {name.partition("/")[0] for name in (*tree.files.names, *tree.folders)}
    seen = ", ".join(sorted(first)[: listing.NAMED]) or "nothing"
    lines = "".join(f"; {line}" for line in unused.lines())
    return f"no usable images in {root}/CLASS/; its top folder contains {seen}{lines}{remedy}"
