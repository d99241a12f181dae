"""Files beside the images that may have their labels and are not read, which messages name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from conf.text import list_some
from models.data.sources.files.archive import Files
from models.data.sources.split_names import split_of
from models.data.sources.tables.csv_labels import NO_CLASSES, are_classes, header_of
from models.data.sources.tables.image_names import index_images, match_name, names_one
from models.data.sources.tables.json_tables import JSON_LINES, lists_images
from models.data.sources.tables.matlab import MATLAB
from models.data.sources.tables.reading import (
    MAX_BYTES,
    SUFFIXES,
    TABLES,
    Table,
    decode,
    has_one_for_each,
    is_of_predictions,
    may_label,
    read_submissions,
    read_tables,
)

_OTHER_TABLES = (
    ".json",
    ".xlsx",
    ".xls",
    ".ods",
    ".parquet",
    ".feather",
    ".pkl",
    ".mat",
    ".h5",
    ".npy",
    ".npz",
    ".pt",
    ".pth",
)
_PACKED = (".gz", ".zip", ".bz2", ".xz", ".7z")
_YAML, _MAX_YAML_BYTES = (".yaml", ".yml"), 2**20
_MAX_TEXT_BYTES = 2**24  # of a file with another suffix than those of tables
_FEW = 20
_HEAD_BYTES = 4096
_SHORT = 4  # characters of a word in a text that may be a name without suffix, and not a number or an article
_LABEL_BYTES = 2  # of a label, at least
_SHOWN = 60  # characters of a line in a message


def describe_others(files: Files, images: Sequence[str]) -> str:
    """Returns a remark on the first file that may have the labels and is not used; empty if there is none."""
    stems = index_images(images)
    read = {table.path for table, _ in read_tables(files, images, (MATLAB,))}
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2].lower()
        if path.rpartition("/")[2].rpartition(".")[0] in stems or path in read or files.sizes[row] > MAX_BYTES:
            continue
        if name.endswith((".csv", ".tsv", *JSON_LINES)) and is_of_predictions(path.rpartition("/")[2]):
            if "sample" not in name:
                return f" ({path} is not read: rename it unless it has predictions, as its name says)"
            continue
        if name.endswith((".csv", ".tsv", *JSON_LINES)):
            lines = [line for line in decode(files.read(row)).splitlines() if line.strip()]
            if any(match_name(line.strip(), stems) for line in lines[:_FEW]):
                return f" ({path} names images, and has no column of their classes)"
            shown = ascii(lines[min(1, len(lines) - 1)][:_SHOWN]) if lines else "empty"
            return f" ({path} names none of the images; its second line is {shown})"
        packed = next((suffix for suffix in _PACKED if name.endswith(suffix)), "")
        if name.removesuffix(packed).endswith((*SUFFIXES, *_OTHER_TABLES) if packed else _OTHER_TABLES):
            return f" ({path} is not read: save its names and classes as a CSV file)"
    return (
        _describe_names(files, stems) or _describe_aligned(files, images, stems) or _describe_text(files, images, stems)
    )


def _describe_aligned(files: Files, images: Sequence[str], index: Mapping[str, str | None]) -> str:
    """Returns a remark on the first text with a label for each image and no names; empty for none."""
    for row, path in enumerate(files.names):
        if not path.lower().endswith(SUFFIXES) or not len(images) <= files.sizes[row] <= MAX_BYTES:
            continue
        if may_label(decode(files.read(row)), index, len(images), is_named=False, is_of_other=False):
            return (
                f" ({path} has as many labels as there are images, and no names: which is whose is not stated; save "
                "names and classes as a CSV file)"
            )
    return ""


def _describe_text(files: Files, images: Sequence[str], index: Mapping[str, str | None]) -> str:
    """Returns a remark on the first file of another suffix that has the name of an image; empty for none."""
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2]
        is_other = name not in index and name.rpartition(".")[0] not in index and not name.lower().endswith(SUFFIXES)
        if is_other and 0 < files.sizes[row] <= _MAX_TEXT_BYTES and names_one(decode(files.read(row)), images):
            return f" ({path} has names of images and is not read: save these and their classes as a CSV file)"
    return ""


def _describe_names(files: Files, index: Mapping[str, str | None]) -> str:
    """Returns a remark on texts that list names of images and nothing else, perhaps of a class each; empty for none."""
    lists = []
    for row, path in enumerate(files.names):
        if path.lower().endswith(SUFFIXES) and files.sizes[row] <= MAX_BYTES:
            lines = [line.strip() for line in decode(files.read(row)).splitlines() if line.strip()]
            named = sum(match_name(line, index) is not None for line in lines[:_FEW])
            lists += (
                [path] if lines and named == len(lines[:_FEW]) and split_of(path.rpartition("/")[2]) is None else []
            )
    if len(lists) < 2:
        return ""
    return (
        f" ({list_some(sorted(lists))} list names of images without their classes: if each has those of one class, "
        "save all in a CSV file with the columns image and label)"
    )


def describe_yaml(files: Files) -> str:
    """Returns the settings for the splits that a YAML file states, as of YOLO; empty unless folders have other names.

    As ``train: first`` and ``val: second`` in ``data.yaml``, whose paths may begin elsewhere (``../first/images``).
    """
    rows = [row for row, path in enumerate(files.names) if path.lower().endswith(_YAML)]
    rows = [row for row in rows[:_FEW] if files.sizes[row] <= _MAX_YAML_BYTES]  # more are about an image each
    if not rows:
        return ""
    folders = {name.rsplit("/", up)[0] for name in files.names for up in range(1, name.count("/") + 1)}
    for row in rows:
        stated = _read_folders(decode(files.read(row)), folders)
        train, *held_out = stated.values() or ("",)
        is_known = all(kind in map(split_of, folder.split("/")) for kind, folder in stated.items())
        if "train" in stated and held_out and not is_known:
            return (
                f"{files.names[row]} states other splits than the names of folders: data.train_folders=[{train}] "
                f"data.val_folders=[{','.join(held_out)}] takes them"
            )
    return ""


def _read_folders(text: str, folders: Collection[str]) -> dict[str, str]:
    """Returns the folders that the keys train, val and test of a YAML file name, by the ends of their paths."""
    import yaml

    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    stated: dict[str, str] = {}
    for kind in ("train", "val", "test") if isinstance(content, dict) else ():
        parts = [part for part in re.split(r"[\\/]", str(content.get(kind, ""))) if part.strip(".")]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        if (folder := next((end for end in ends if end in folders), "")) != "":
            stated[kind] = folder
    return stated


def list_submitted(files: Files, images: Sequence[str], labelled: Sequence[str]) -> set[str]:
    """Returns the images whose classes are not published: those that a sample of a submission or a table of test names.

    Args:
        files: The tree.
        images: Paths of images without a label.
        labelled: Paths of images with one, in whose tables other columns than those of labels may be of test, too.
    """
    if not images:
        return set()
    submitted = {image for table, _ in read_submissions(files, images) for image in table.rows}
    of_test = [
        (table, key) for table, key in read_tables(files, images) if split_of(table.path.rpartition("/")[2]) == "test"
    ]
    if of_test:
        paths = {table.path for table, _ in of_test}
        known = {
            header for table, _ in read_tables(files, labelled) if table.path not in paths for header in table.header
        }
        submitted |= {image for table, key in of_test if not _has_classes(table, key, known) for image in table.rows}
    return submitted


def find_unused_table(files: Files, images: Sequence[str]) -> str:
    """Returns the first table that names held-out images and may have classes of them; empty for none."""
    return next((table.path for table, key in read_tables(files, images) if _has_classes(table, key)), "")


def _has_classes(table: Table, key: int, others: Collection[str] = ()) -> bool:
    """Whether a column of a table may have classes; those with some headers have other facts about images."""
    return any(
        are_classes(table.column(number))
        for number in range(len(table.header))
        if number != key and header_of(table, number) not in NO_CLASSES and table.header[number] not in others
    )


def find_tables_about(files: Files, images: Sequence[str]) -> list[str]:
    """Returns the tables and lists of which one of the first lines has the name of an image, or the path of a folder.

    As ``train_labeled_studies.csv`` of MURA, which has a row for each folder of images.
    """
    suffixes = (*SUFFIXES, *JSON_LINES, ".json")
    rows = [row for row, path in enumerate(files.names) if path.lower().endswith(suffixes) and files.sizes[row] > 0]
    if not rows:
        return []
    # The few names in the tables are looked for among those of the images: an index of a large set takes long.
    stems = {_stem_of(files.names[row]) for row in rows}
    of_images = {stem for image in images if (stem := _stem_of(image)) in stems}  # boxes or a caption of one image
    rows = [row for row in rows if _stem_of(files.names[row]) not in of_images]
    heads = dataclasses.replace(files, sizes=np.minimum(files.sizes, _HEAD_BYTES)).reader(rows)
    named = {files.names[row]: _names_in(heads(number), files.names[row]) for number, row in enumerate(rows)}
    every = set().union(*named.values())
    known = {text for image in images for text in (image.rpartition("/")[2], _stem_of(image)) if text in every}
    known |= {"/".join(folder.split("/")[-2:]) for folder in {image.rpartition("/")[0] for image in images}} & every
    return [path for path, texts in named.items() if not texts.isdisjoint(known)]


def _stem_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _names_in(head: bytes, path: str) -> set[str]:
    """Returns what may be names of images, or the last two folders of a path, in the first lines of a table."""
    texts: set[str] = set()
    for line in decode(head).splitlines()[:_FEW]:
        for cell in re.split(r'[,;\t|"]', line) + line.split():
            whole = cell.strip(" '\"").replace("\\", "/").rstrip("/")
            if "." in whole or len(whole) > _SHORT or not path.lower().endswith(".txt"):
                name = whole.rpartition("/")[2]
                texts |= {name, _stem_of(name)}
                texts |= {"/".join(whole.split("/")[-2:])} if "/" in whole else set()
    return texts - {""}


def find_unread_labels(files: Files, images: Sequence[str]) -> str:
    """Returns the first file that is no such table and may have the labels of held-out images; empty for none.

    That is a text or JSON with as many labels as there are images, a text named after a test split that does not list
    the images, JSON that names one of them, or a file of another format that is large enough, unless it is named after
    another split.
    """
    index = index_images(images)
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2].lower()
        kinds = {split_of(part) for part in path.split("/")}
        is_of_image = path.rpartition("/")[2].rpartition(".")[0] in index  # boxes or a caption of one image
        if is_of_image or "train" in kinds or files.sizes[row] < len(images):
            continue
        if files.sizes[row] > MAX_BYTES:
            if name.endswith(TABLES):
                return path
            continue
        if name.endswith((*SUFFIXES, *JSON_LINES)):
            is_about = not is_of_predictions(name) and may_label(
                decode(files.read(row)), index, len(images), is_named="test" in kinds, is_of_other="val" in kinds
            )
        else:
            packed = next((suffix for suffix in _PACKED if name.endswith(suffix)), "")
            is_about = name.removesuffix(packed).endswith((*SUFFIXES, *_OTHER_TABLES) if packed else _OTHER_TABLES)
            is_about = is_about and files.sizes[row] >= _LABEL_BYTES * len(images)
            if is_about and name.endswith(".json"):
                text = decode(files.read(row))
                may_be = "test" in kinds or names_one(text, images) or has_one_for_each(text, len(images))
                is_about = may_be and not lists_images(text)
        if is_about:
            return path
    return ""
