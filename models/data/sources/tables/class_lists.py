"""Lists of one class each, with 1 for its images and -1 or 0 for others, as ``cat_train.txt`` of Pascal VOC.

Lists without -1, as converters write them, may be labels of two classes: they are lists of one class each if few images
have 1 in several of them. Then 0 is no mark of difficult objects.

Source of the layout: ``ImageSets/Main`` of the VOC2012 devkit (section 4.1): 1 for images with an object of the class,
-1 for images without any, 0 for images with none but difficult ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from conf.text import logger
from infra.errors import ConfigError
from models.data.sources.split_names import names_no_class, split_of, words_of
from models.data.sources.tables.reading import Table, cell_of

log = logger()
_MARKS = frozenset(("1", "0", "-1"))
_YES, _DIFFICULT, _NO = "1", "0", "-1"
# Words in names of lists of two classes, -1 and 1.
_LABEL_WORDS = frozenset(
    ("label", "labels", "target", "targets", "class", "classes", "annotation", "annotations", "gt")
)
_SHARED = 0.9  # of the images of all lists that the smallest list of a split has; other files are no lists of one class


class ClassLists(NamedTuple):
    """What the lists of a tree state: class and kind of split of each image, a text that names the lists, and all."""

    labels: dict[str, set[str]]
    kinds: dict[str, str]
    source: str
    paths: list[str]


def take_lists(tables: Sequence[tuple[Table, int]], root: str) -> tuple[ClassLists | None, list[tuple[Table, int]]]:
    """Returns what lists of one class each state, None without any, and the other tables.

    Args:
        tables: Tables, and the column of each that names images.
        root: The tree, for messages.

    Raises:
        ConfigError: Images are in several classes by them, or there are lists of a single class.
    """
    groups: dict[tuple[str, str | None], dict[str, Table]] = {}
    for table, key in tables:
        if len(table.header) == 2 and _has_marks(table, 1 - key):
            folder, _, name = table.path.rpartition("/")
            word, kind = _read_name(name)
            groups.setdefault((folder, kind), {})[word] = table
    keys = {table.path: key for table, key in tables}
    lists = {place: group for place, group in groups.items() if _are_of_classes(group, keys)}
    if not lists:
        _refuse_single(groups, keys, root)
        return None, list(tables)
    taken = {table.path for group in lists.values() for table in group.values()}
    stated, kinds, difficult, has_no = dict[str, set[str]](), dict[str, str](), set[str](), False
    for (_, kind), group in lists.items():
        for word, table in group.items():
            for image, marks in _marks_of(table, 1 - keys[table.path]).items():
                stated.setdefault(image, set()).update({word} if _YES in marks else ())
                difficult |= {image} if _DIFFICULT in marks else set()
                has_no |= _NO in marks
                if kind in ("train", "val", "test"):
                    kinds[image] = kind
    labels = {image: words for image, words in stated.items() if words}
    _refuse_several(labels, min(taken), len(taken), root)
    if difficult and has_no:
        log.warning(
            "%s: %s images have objects of further classes that the lists call difficult (0)",
            root,
            f"{len(difficult):,}",
        )
    words = sorted({word for group in lists.values() for word in group})
    source = f"{len(taken)} lists of {len(words)} classes, as {min(taken)}"
    others = [one for one in tables if one[0].path not in taken]
    return ClassLists(labels, kinds, source, sorted(taken)), others


def as_mark(text: str) -> str:
    """Returns 0 or 1 for the spellings of no and yes; other texts as they are."""
    return {"false": "0", "true": "1"}.get(text.lower(), text.removesuffix(".0"))


def _has_marks(table: Table, number: int) -> bool:
    return all(as_mark(cell_of(row, number)) in _MARKS for rows in table.rows.values() for row in rows)


def _marks_of(table: Table, number: int) -> dict[str, set[str]]:
    return {image: set(map(as_mark, texts)) for image, texts in table.column(number).items()}


def _read_name(name: str) -> tuple[str, str | None]:
    """Returns the class and the split that the name of a list states, as of ``cat_train.txt``."""
    stem = name.rpartition(".")[0]
    word, separator, last = stem.rpartition("_") if "_" in stem else stem.rpartition("-")
    kind = split_of(last, both="trainval")
    return (word, kind) if separator and word and kind is not None else (stem, None)


def _are_of_classes(group: Mapping[str, Table], keys: Mapping[str, int]) -> bool:
    """Whether tables have marks of the same images, or of their images alone, one table for each of several classes.

    Args:
        group: Tables by the class that their names state.
        keys: The column of the names of images, by table.
    """
    if len(group) < 2 or all(re.fullmatch(r"\d+", word) for word in group):
        return False
    columns = [_marks_of(table, 1 - keys[table.path]) for table in group.values()]
    marks = {mark for column in columns for marks in column.values() for mark in marks}
    images = Counter(image for column in columns for image in column)
    is_shared = all(len(column) >= _SHARED * len(images) for column in columns)
    marked = Counter(image for column in columns for image, marks in column.items() if _YES in marks)
    are_few = 2 * sum(number > 1 for number in marked.values()) < len(marked)
    return is_shared if _NO in marks else are_few and (is_shared or marks == {_YES})


def _refuse_single(
    groups: Mapping[tuple[str, str | None], Mapping[str, Table]], keys: Mapping[str, int], root: str
) -> None:
    """Refuses lists of one class alone, whose marks are no classes: those with -1 and no header, by their names."""
    for group in groups.values():
        for word, table in group.items():
            is_class = not names_no_class(word) and _LABEL_WORDS.isdisjoint(words_of(word))
            is_class = is_class and split_of(word, both="trainval") is None
            marks = set().union(*_marks_of(table, 1 - keys[table.path]).values())
            if len(group) == 1 and is_class and table.is_bare and {_YES, _NO} <= marks:
                raise ConfigError(
                    f"{root}: {table.path} is a list of the class {word} alone, as of Pascal VOC, with 1 for its "
                    "images, -1 for others and 0 for difficult ones: add the lists of the other classes, or save the "
                    "class of each image as a CSV file (columns image and label) in place of the list; a first line "
                    "`image label` in it takes the marks as classes"
                )


def _refuse_several(labels: Mapping[str, set[str]], first: str, count: int, root: str) -> None:
    several = sorted(image for image, words in labels.items() if len(words) > 1)
    if several:
        raise ConfigError(
            f"{root}: {first} and {count - 1} more are lists of one class each, as those of Pascal VOC, by which "
            f"{len(several):,} of {len(labels):,} images are in several classes, as {several[0]} in "
            f"{' and '.join(sorted(labels[several[0]]))}: labels of a multi-label set, and a classifier here has one "
            "class for each image; a CSV file of the images in one class (columns image and label), in place of the "
            "lists, trains on these"
        )
