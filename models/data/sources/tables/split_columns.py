"""Columns of tables that state the splits of images: train and a held-out split, or folds.

As ``split``, ``is_train`` and ``is_test_image``, ``partition`` of CelebA (0 train, 1 val, 2 test), and ``fold``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from conf import schema
from conf.data_set import FOLD_TOLERANCE
from conf.text import escaped
from infra.errors import ConfigError
from models.data.sources.files.archive import Files
from models.data.sources.split_names import (
    SHORT_WORDS,
    SPLIT_WORDS,
    codes_of,
    kind_of_text,
    rest_of,
    split_among,
    split_of,
)
from models.data.sources.splits import WHOLE_TREE
from models.data.sources.tables.reading import Table, cell_of, read_tables

_PARTITION = {"0": "train", "1": "val", "2": "test"}
_YES, _NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")
IS_TRAIN = dict.fromkeys(_YES, "train") | dict.fromkeys(_NO, "test")
_IS_VAL = dict.fromkeys(_YES, "val") | dict.fromkeys(_NO, "train")
_MARKS = frozenset(("is", "in", "flag"))  # words of headers of columns with yes and no, as is_test_image
SPLIT_HEADERS = ("split", "set", "subset", "fold", "folds", "kfold", "partition", "evaluation_status", "usage")
_MAX_FOLDS = 100  # of a column; of more values it has numbers of images
WITHOUT_LISTS = f"data.train_folders=[{WHOLE_TREE}] divides the images without lists"


class SplitLists(NamedTuple):
    """The split of each image by lists or a table, a line about these or about files that may be some, and the files.

    Kinds are train, val and test; images that no list names are absent.
    """

    kinds: dict[str, str]
    said: str
    paths: Sequence[str] = ()


def find_kinds(table: Table, classes: int | None, tables: Sequence[str] = ()) -> dict[str, str]:
    """Returns the split of each image: by a column of splits, train among them, or else by the name of the table.

    Args:
        table: The table.
        classes: The column that has the classes, which are no splits.
        tables: Paths of all tables with classes.
    """
    kind = split_among(table.path.rpartition("/")[2], [path.rpartition("/")[2] for path in tables])
    return find_column(table, classes)[1] or (dict.fromkeys(table.rows, kind) if kind else {})


def find_column(table: Table, classes: int | None = None) -> tuple[int | None, dict[str, str]]:
    """Returns the column of splits, train among them, and the split of each image; None without such a column.

    The split is empty for an image whose rows state several, as of a table with a row for each fold.

    Args:
        table: The table.
        classes: A column that has other texts.
    """
    is_partition = "partition" in table.path.rpartition("/")[2].lower()
    for number in range(len(table.header)):
        header = cell_of(table.header, number).lower()
        codes = _codes_by_header("partition" if is_partition and len(table.header) == 2 else header)
        column = {} if number == classes else table.column(number)
        texts_of_column = {text.lower() for texts in column.values() for text in texts}
        if texts_of_column <= SPLIT_WORDS.keys():  # the header may be a row
            codes = codes_of(texts_of_column)
        if header in SPLIT_HEADERS and texts_of_column <= SHORT_WORDS.keys() | SPLIT_WORDS.keys():
            codes = codes | SHORT_WORDS
        every = {text for texts in column.values() for text in texts}
        are_few = len(every) <= _MAX_FOLDS  # else names of images
        words = {text: codes.get(text.lower()) or (are_few and kind_of_text(text)) or "" for text in every}
        kinds = {image: {words[text] for text in texts} for image, texts in column.items()}
        present = set().union(*kinds.values())
        if "train" in present and len(present) > 1 and "" not in present:
            return number, {image: min(one) if len(one) == 1 else "" for image, one in kinds.items()}
    return None, {}


def _codes_by_header(header: str) -> dict[str, str]:
    """Returns the kinds of splits by the texts of a column, which of most columns are the words of splits."""
    if header == "partition":
        return SPLIT_WORDS | _PARTITION
    kind = split_of("train" if header == "istrain" else header)
    if kind is None or not _MARKS.issuperset(rest_of(header)):
        return SPLIT_WORDS
    return IS_TRAIN if kind == "train" else _IS_VAL


def read_columns(files: Files, images: Sequence[str], data: schema.Data) -> SplitLists:
    """Returns the split of each image by a column of a table, as ``read_split_lists``.

    Of numbered tables the first counts.

    Raises:
        ConfigError: The rows of an image state several splits, or other tables state other ones.
    """
    unread = ""
    stated: dict[str, dict[str, str]] = {}
    for table, names in read_tables(files, images):
        number, kinds = find_column(table, names)
        is_class = number is not None and cell_of(table.header, number).lower() == str(data.label_field).lower()
        if 2 * len(table.rows) <= len(images):
            continue
        if number is not None and not is_class:
            _refuse_several(files.root, table, number, kinds)
            stated[table.path] = kinds
        for column in range(len(table.header)) if number is None and not stated else ():
            if _may_be_split(table, column, data.label_field):
                kinds, said = _read_folds(table, column, data)
                if kinds:
                    return SplitLists(kinds, said, [table.path])
                unread = said if "data.folds=" in said else unread or said
    if not stated:
        return SplitLists({}, unread)
    first, *others = sorted(stated, key=_by_number)
    different = [path for path in others if any(stated[first].get(i, kind) != kind for i, kind in stated[path].items())]
    other = next((path for path in different if re.sub(r"\d+", "", path) != re.sub(r"\d+", "", first)), None)
    if other is not None:
        raise ConfigError(
            f"{files.root}: {first} states other splits than {other}: keep that which counts; {WITHOUT_LISTS}"
        )
    more = f", the first of {len(different) + 1} divisions" if different else ""
    return SplitLists(stated[first], f"{first} states the splits{more}", [first])


def _by_number(path: str) -> list[tuple[int, str]]:
    """Returns a key by which names are in the order of the numbers in them, for sorting."""
    return [(len(part), part) for part in re.split(r"(\d+)", path)]


def _refuse_several(root: str, table: Table, number: int, kinds: Mapping[str, str]) -> None:
    """Refuses a column of splits that states several for an image, as of a table with a row for each fold."""
    several = sorted(image for image, kind in kinds.items() if not kind)
    if not several:
        return
    folds = [one for one, header in enumerate(table.header) if "fold" in header.lower()]
    values = sorted({text for texts in table.column(folds[0]).values() for text in texts}) if folds else []
    remedy = "keep one row of each image"
    if len(values) > 1:
        remedy = (
            f"its column {table.name(folds[0])} numbers {len(values)} divisions, of which one can be used: keep the "
            f"rows of one, as those with {values[0]}"
        )
    raise ConfigError(
        f"{root}: {table.path} contradicts itself: its column {table.name(number)} has several splits of "
        f"{len(several):,} of {len(kinds):,} images, first {escaped(several[0])}; {remedy}; {WITHOUT_LISTS}"
    )


def _may_be_split(table: Table, number: int, label_field: str | None) -> bool:
    header = cell_of(table.header, number).lower()
    return header in SPLIT_HEADERS and header != str(label_field).lower()


def _read_folds(table: Table, number: int, data: schema.Data) -> tuple[dict[str, str], str]:
    """Returns the splits by a column of folds, of which ``data.fold`` is val; none if the column has another number.

    The second is a line about the column, with the settings that read it if it has folds.
    """
    column = {image: min(texts) for image, texts in table.column(number).items() if len(texts) == 1}
    values = sorted(set(column.values()), key=lambda text: (len(text), text))
    where = f"the column {table.name(number)} of {table.path}"
    if len(values) == data.folds > 1 and len(column) == len(table.rows):
        kinds = {image: "val" if text == values[data.fold] else "train" for image, text in column.items()}
        return kinds, f"the folds are those of {where}: val is {values[data.fold]}, the others are train"
    is_fold = "fold" in table.name(number).lower() and 1 < len(values) <= _MAX_FOLDS
    if not is_fold:
        return {}, f"splits are drawn, not those of {where}"
    share = "" if abs(data.val_share * len(values) - 1) <= FOLD_TOLERANCE else f" data.val_share={1 / len(values):.3g}"
    settings = f"data.folds={len(values)}{share} data.fold=0"
    return {}, f"splits are drawn, not those of {where}; {settings} takes its first fold as val"
