"""Tables that divide the images into other classes than their folders do.

As ``train2018.json`` of iNaturalist beside ``Aves/2761/IMAGE``, ``Ebay_train.txt`` of Stanford Online Products, whose
folders are super-classes, and ``train.txt`` of WebVision, whose folders are queries.
"""

from __future__ import annotations

from collections.abc import Mapping

from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.files.archive import Files
from models.data.sources.listing import Listing
from models.data.sources.split_names import split_of, words_of
from models.data.sources.tables.csv_labels import HEADERS, are_classes, header_of, texts_of
from models.data.sources.tables.json_tables import CATEGORY, JSON, JSON_LINES
from models.data.sources.tables.matlab import MATLAB
from models.data.sources.tables.reading import SUFFIXES, Table, read_tables
from models.data.sources.tables.split_lists import find_column

_TABLES = (*SUFFIXES, *JSON_LINES, MATLAB)
_LABEL_WORDS = frozenset(("label", "labels", "list", "annotation", "annotations"))  # in names of lists of labels


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


def describe_other_labels(files: Files, entries: Listing, top: str, as_folders: str) -> tuple[str, ...]:
    """Returns a remark for each table with a usual column of classes that differ from the folders.

    Args:
        files: The tree.
        entries: The images, with folders as their classes.
        top: The common top folder, below which their names are.
        as_folders: Settings that take the folders as classes in any case.

    Raises:
        ConfigError: A list of names and labels without a header, as ``train.txt``, states other classes.
    """
    if not any(name.lower().endswith(_TABLES) for name in files.names):
        return ()
    folders = _folders_of(entries, top)
    remarks = []
    for table, key in read_tables(files, list(folders), _TABLES):
        if 2 * len(table.rows) <= len(folders):
            continue
        number = _find_labels(table, key)
        pairs = set() if number is None else _pair(table, number, folders)
        if number is None or not pairs or _are_equal(pairs):
            continue
        classes, labels = _count_sides(pairs)
        if table.is_bare:
            raise ConfigError(
                f"{files.root}: {table.path} has {labels:,} labels of images in {classes:,} folders, and divides them "
                f"in another way: a first line with `image label` in such lists and data.label_field=label take these "
                f"labels as classes, {as_folders} the folders"
            )
        name = table.name(number)
        remarks.append(
            f"the classes are the {classes:,} folders, and not the {labels:,} classes of the column {name} of "
            f"{table.path}, which differ; data.label_field={name} takes these"
        )
    return tuple(remarks)


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
