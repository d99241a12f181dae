"""Tables that divide the images into other classes than their folders do.

As ``train2018.json`` of iNaturalist beside ``Aves/2761/IMAGE``, ``Ebay_train.txt`` of Stanford Online Products, whose
folders are super-classes, ``train.txt`` of WebVision, whose folders are queries, and ``train.csv`` of CheXpert, whose
folders are patients (``train/patient00001/study1/view1_frontal.jpg``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.files.archive import Files
from models.data.sources.listing import Listing
from models.data.sources.split_names import split_of, words_of
from models.data.sources.tables.csv_labels import HEADERS, NO_CLASSES, are_classes, header_of, texts_of
from models.data.sources.tables.json_tables import CATEGORY, JSON, JSON_LINES
from models.data.sources.tables.matlab import MATLAB
from models.data.sources.tables.reading import SUFFIXES, Table, read_tables
from models.data.sources.tables.split_columns import SPLIT_HEADERS, find_column

_TABLES = (*SUFFIXES, *JSON_LINES, MATLAB)
_LABEL_WORDS = frozenset(("label", "labels", "list", "annotation", "annotations"))  # in names of lists of labels
# Words in names of folders, or of columns with a text for each, that are no classes: what images are of.
_SUBJECTS = frozenset(("patient", "patients", "subject", "subjects", "participant", "study", "case", "sample", "scan"))
_FEW_IMAGES = 2  # of a folder; most classes have more
_FEW_FOLDERS = 4  # that may be classes of few images, as in an example


class _Folders(NamedTuple):
    """The folders that would be the classes.

    Attributes:
        of: The folder of each image.
        counts: Number of images by split.
        splits: The split of each image.
        are_subjects: Whether they look like patients or other subjects by their names or by few images in each.
    """

    of: Mapping[str, str]
    counts: Mapping[int, int]
    splits: Mapping[str, int]
    are_subjects: bool

    def has_most(self, images: Sequence[str]) -> bool:
        """Whether images are most of a split."""
        named = Counter(self.splits[image] for image in images if image in self.splits)
        return any(2 * count > self.counts[split] for split, count in named.items())


def _folders_of(entries: Listing, top: str) -> dict[str, str]:
    """Returns the folder of each image that is its class."""
    return {top + name: entries.classes[label] for name, label in zip(entries.names, entries.labels, strict=True)}


def refuse_other_categories(files: Files, entries: Listing, top: str) -> None:
    """Refuses annotations as of COCO whose categories divide the images into other classes than the folders do.

    As ``train2018.json`` of iNaturalist, whose images are in ``Aves/2761/IMAGE``.

    Args:
        files: The tree.
        entries: The images, with folders as their classes.
        top: The common top folder, below which their names are.

    Raises:
        ConfigError: There are such annotations.
    """
    if not any(name.lower().endswith(JSON) for name in files.names):
        return
    folders = _folders_of(entries, top)
    pairs: set[tuple[str, str]] = set()
    paths: list[str] = []
    for table, _ in read_tables(files, list(folders), (JSON,)):
        if CATEGORY in table.header:
            stated = texts_of(table, table.header.index(CATEGORY))
            pairs |= {(folders[image], text) for image, texts in stated.items() for text in texts}
            paths.append(table.path)
    classes, categories = _count_sides(pairs)
    if pairs and not _are_equal(pairs):
        raise ConfigError(
            f"{files.root}: the images have {categories:,} categories by {list_some(paths)}, and {classes:,} "
            f"folders would be the classes: data.label_field={CATEGORY} takes the categories as classes, "
            "data.class_level=-1 the folders that the images are in, and data.train_folders those that it names"
        )


def describe_other_labels(
    files: Files, entries: Listing, top: str, as_folders: str, *, is_part: bool
) -> tuple[str, ...]:
    """Returns a remark for each table with columns that may be classes and differ from the folders.

    Args:
        files: The tree.
        entries: The images, with folders as their classes.
        top: The common top folder, below which their names are.
        as_folders: Settings that take the folders as classes in any case.
        is_part: Whether the images may be a few that are appended to others, so that small folders say nothing.

    Raises:
        ConfigError: A list of names and labels without a header, as ``train.txt``, states other classes, or a table
            does and the folders look like patients.
    """
    if not any(name.lower().endswith(_TABLES) for name in files.names):
        return ()
    folders = _look_at(entries, top, is_part=is_part)
    remarks = []
    for table, key in read_tables(files, list(folders.of), _TABLES):
        if not folders.has_most(list(table.rows)):
            continue
        number = _find_labels(table, key)
        pairs = set() if number is None else _pair(table, number, folders.of)
        is_other = bool(pairs) and not _are_equal(pairs)
        if is_other and table.is_bare:
            classes, labels = _count_sides(pairs)
            raise ConfigError(
                f"{files.root}: {table.path} has {labels:,} labels of images in {classes:,} folders, and divides them "
                f"in another way: a first line with `image label` in such lists and data.label_field=label take these "
                f"labels as classes, {as_folders} the folders"
            )
        columns = [number] if is_other and number is not None else [] if pairs else _find_others(table, key, folders.of)
        if columns and folders.are_subjects:
            _refuse_subjects(files.root, table, columns, folders, as_folders)
        if is_other and number is not None:
            classes, labels = _count_sides(pairs)
            name = table.name(number)
            remarks.append(
                f"the classes are the {classes:,} folders, and not the {labels:,} classes of the column {name} of "
                f"{table.path}, which differ; data.label_field={name} takes these"
            )
        elif columns:
            names = list_some(list(map(table.name, columns)))
            remarks.append(
                f"the classes are the folders; {table.path} divides the images otherwise by {names}, and "
                f"data.label_field={table.name(columns[0])} would take the classes from there"
            )
    return tuple(remarks)


def _look_at(entries: Listing, top: str, *, is_part: bool) -> _Folders:
    of = _folders_of(entries, top)
    images = sorted(Counter(of.values()).values())
    are_small = not is_part and len(images) > _FEW_FOLDERS and images[len(images) // 2] <= _FEW_IMAGES
    stems = {re.sub(r"\d+", "", folder.casefold()) for folder in of.values()}
    are_named = len(images) > 1 and len(stems) == 1 and not _SUBJECTS.isdisjoint(words_of(stems.pop()))
    splits = {top + name: split for name, split in zip(entries.names, entries.split, strict=True)}
    return _Folders(of, Counter(entries.split), splits, are_small or are_named)


def _find_others(table: Table, key: int, folders: Mapping[str, str]) -> list[int]:
    """Returns the columns that may be classes; none if one has a text for each folder and names no subjects.

    The columns of a list without a header may be anything.
    """
    if not table.has_header:
        return []
    splits = find_column(table)[0]
    columns = []
    for number in range(len(table.header)):
        header = header_of(table, number)
        if number in (key, splits) or header in (*NO_CLASSES, *SPLIT_HEADERS):
            continue
        pairs = _pair(table, number, folders)
        if pairs and _are_equal(pairs):
            is_of_all = len(set(folders.values())) == len(pairs) < len(table.rows)  # and no number of each image
            if is_of_all and not _names_subjects(table.name(number)):
                return []
        elif are_classes(table.column(number)):
            columns.append(number)
    return columns


def _names_subjects(header: str) -> bool:
    """Whether a column has a text for each patient or the like, as ``PatientID`` and ``subject_id``."""
    return any(word.removesuffix("id") in _SUBJECTS for word in words_of(header))


def _refuse_subjects(root: str, table: Table, columns: Sequence[int], folders: _Folders, as_folders: str) -> NoReturn:
    """Raises a ConfigError about folders that look like patients beside a table that may have the classes."""
    names = list(dict.fromkeys(folders.of.values()))
    raise ConfigError(
        f"{root}: the {len(folders.of):,} images are in the {len(names):,} folders {list_some(sorted(names))}, which "
        f"look like patients or other subjects, and {table.path} divides the images otherwise: "
        f"data.label_field=COLUMN takes one of its columns as the classes "
        f"({list_some(list(map(table.name, columns)))}), with data.group_level=1 to keep the images of a folder in one "
        f"split; {as_folders} takes the folders as the classes"
    )


def _find_labels(table: Table, key: int) -> int | None:
    """Returns the column with a usual header of classes, or that beside the names in a list without a header."""
    if table.is_bare:
        words = set(words_of(table.path.rpartition("/")[2].rpartition(".")[0]))
        is_named = split_of(table.path.rpartition("/")[2]) is not None or not words.isdisjoint(_LABEL_WORDS)
        other = 1 - key
        is_split = find_column(table)[0] is not None
        return other if is_named and not is_split and are_classes(table.column(other)) else None
    names = {header_of(table, number): number for number in reversed(range(len(table.header)))}
    named = (names[header] for header in HEADERS if header in names)
    return next((number for number in named if number != key and are_classes(table.column(number))), None)


def _pair(table: Table, number: int, folders: Mapping[str, str]) -> set[tuple[str, str]]:
    """Returns the pairs of a folder and a text that images have."""
    return {(folders[image], text) for image, texts in texts_of(table, number).items() for text in texts}


def _count_sides(pairs: set[tuple[str, str]]) -> tuple[int, int]:
    return len({folder for folder, _ in pairs}), len({text for _, text in pairs})


def _are_equal(pairs: set[tuple[str, str]]) -> bool:
    """Whether each folder has a text of its own."""
    return _count_sides(pairs) == (len(pairs), len(pairs))
