"""Labels of images from tables beside them (CSV, JSON lines and the like), as in Kaggle's and Hugging Face's data sets.

A table has a column with names of the images, with or without folders and suffix, and a column of classes, or of texts
whose first word is a class. Commas, semicolons, tabs, bars or spaces separate its columns; of JSON lines each is an
object (``tables.py``).

Sources of the layouts: ``LOC_val_solution.csv`` of kaggle.com/c/imagenet-object-localization-challenge (columns ImageId
and PredictionString, whose first word is the class), ``labels.csv`` of dog-breed-identification, ``train.csv`` of
cassava-leaf-disease-classification and of plant-pathology-2020-fgvc7 (a column of 0 and 1 for each class),
``trainLabels.csv`` of diabetic-retinopathy-detection; ``metadata.csv`` and ``metadata.jsonl`` of Hugging Face's
ImageFolder (huggingface.co/docs/datasets/image_dataset).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, NoReturn

from conf.text import list_some, logger
from infra.errors import ConfigError
from models.data.sources.class_remarks import split_labels
from models.data.sources.files.archive import Files
from models.data.sources.split_names import SPLIT_WORDS, split_of
from models.data.sources.tables.class_lists import as_mark, take_lists
from models.data.sources.tables.group_columns import describe_groups
from models.data.sources.tables.json_tables import JSON
from models.data.sources.tables.object_cells import divide_objects
from models.data.sources.tables.reading import Table, cell_of, join_words, read_tables, warn_of_predictions
from models.data.sources.tables.split_columns import find_column, find_kinds

log = logger()
_Read = tuple[Table, int, int | None, dict[str, set[str]]]  # with the columns of names and classes, and the classes
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]+(\.0*)?")
_NO_TEXT = ", which are lists or objects: save the class of each image as a CSV file"
_MEASURED = (
    ", in which most images have a number of their own, as measurements and not classes have: write the class of each "
    "image into a column 'label'"
)
_BOX = 4  # numbers of a box, which follow its class
_MISSING = ("", "nan", "NaN", "<NA>", "N/A", "n/a", "#N/A", "NULL", "null")  # as pandas and databases write them
# Headers of columns of classes, the first that a table has; names of classes precede their numbers.
HEADERS = (
    *(
        "class_name",
        "classname",
        "label_name",
        "category_name",
        "classes",
        "class",
        "label",
        "labels",
        "category",
        "target",
    ),
    *("breed", "species", "diagnosis", "variety", "level", "class_id", "label_id", "category_id", "classid", "dx"),
)
# Headers of columns that are no classes, whatever they hold.
NO_CLASSES = ("split", "set", "subset", "fold", "folds", "usage", "partition", "width", "height", "size")


class Stated(NamedTuple):
    """What tables state of images.

    Attributes:
        labels: The class of each image that has one.
        source: The files and columns as text, of which a message names a few.
        paths: The files.
        remark: A remark on a file that names images without their classes; empty for none.
        kinds: The split of each image of which a column or the name of a file states it; empty if they state several.
        groups: A remark on a column that says which images belong together; empty for none.
    """

    labels: dict[str, str]
    source: str
    paths: list[str]
    remark: str = ""
    kinds: Mapping[str, str] = {}
    groups: str = ""


def read_labels(files: Files, images: Sequence[str], classes: Collection[str]) -> Stated:
    """Reads which of the given classes images are in, from all tables in the tree except submissions and predictions.

    Args:
        files: The tree.
        images: Paths of the images without a class folder.
        classes: Names that count as classes.

    Raises:
        ConfigError: Different classes are stated for one image, or several columns of a table could be the classes.
    """
    labels: dict[str, tuple[str, str]] = {}
    sources: dict[str, str] = {}
    remark = ""
    warn_of_predictions(files)
    for table, key in read_tables(files, images):
        possible = {
            number: stated
            for number in range(len(table.header))
            if number != key and header_of(table, number) not in NO_CLASSES
            if 2 * len(stated := _stated_classes(table, number, classes)) > len(table.rows)
        }
        if not possible:
            remark = remark or _describe_several(table, range(len(table.header)), classes)
            remark = remark or f" ({table.path} names images, but no column of it has these classes)"
            continue
        remark = remark or _describe_several(table, possible, classes)
        named = {header_of(table, number): number for number in reversed(possible)}
        usual = next((named[header] for header in HEADERS if header in named), None)
        if usual is None and any(stated != next(iter(possible.values())) for stated in possible.values()):
            columns = ", ".join(map(table.name, possible))
            raise ConfigError(
                f"{files.root}: in {table.path} the columns {columns} hold names of classes, and differ; call the "
                "right one 'label'"
            )
        column = next(iter(possible)) if usual is None else usual
        _merge(files, labels, table.path, possible[column])
        sources[table.path] = f"{table.path}, {table.name(column)}"
    known = {image: label for image, (label, _) in labels.items()}
    return Stated(known, list_some(list(sources.values()), separator="; "), list(sources), remark)


def read_classes(files: Files, images: Sequence[str], column: str | None) -> Stated:
    """Reads the classes of images that no folders divide into classes, from all tables in the tree.

    Args:
        files: The tree.
        images: Paths of the images.
        column: Header of the column with the classes; None for the usual ones, or the only possible one.

    Raises:
        ConfigError: Tables name the images, but it is not clear which column has their classes, or different classes
            are stated for one image.
    """
    labels: dict[str, tuple[str, str]] = {}
    sources: list[str] = []
    used: list[str] = []
    kinds: dict[str, str] = {}
    unclear: list[str] = []
    warn_of_predictions(files)
    lists, remaining = take_lists(list(read_tables(files, images)), files.root)
    tables = [(divide_objects(join_words(table, key)), key) for table, key in remaining]
    read = [(table, key, *_find_classes(table, key, column)) for table, key in tables]
    read = _without_guesses(read, column)
    for table, _, _, stated in read:
        if stated and (remark := table.describe_rows({text for one in stated.values() for text in one})):
            log.warning("%s: %s", files.root, remark)
    if lists is not None:
        _merge(files, labels, lists.source, lists.labels)
        sources.append(lists.source)
        used += lists.paths
        kinds |= lists.kinds
    is_divided_twice, are_attributes, by_column = False, False, dict[str, str]()
    groups = ""
    texts = {text for _, _, _, stated in read for one in stated.values() for text in one}
    is_whole = bool(texts) and all(map(_WHOLE.fullmatch, texts))  # pandas writes whole numbers so beside missing ones
    paths = [table.path for table, *_ in read]
    for table, key, number, stated in read:
        if not stated:  # of few images, or of a single class
            number, stated = _find_known_classes(table, texts)
        if stated:
            for image, kind in find_kinds(table, number, paths).items():
                is_divided_twice |= kinds.setdefault(image, kind) != kind
            if is_whole:
                stated = {image: {text.partition(".")[0] for text in one} for image, one in stated.items()}
            _merge(files, labels, table.path, stated)
            used.append(table.path)
            groups = groups or describe_groups(table, key, number, stated)
            sources.append(f"{table.path}, " + ("a column per class" if number is None else table.name(number)))
        elif len(table.header) > 1 and (not table.path.endswith(JSON) or 2 * len(table.rows) > len(images)):
            by_column |= find_column(table, key)[1]
            others = [number for number in range(len(table.header)) if number != key]
            unclear.append(_describe_columns(table, others))
            are_attributes |= len(others) > 1 and all(_are_marks(table.column(number)) for number in others)
    if unclear and (not labels or (are_attributes and not any(_is_certain(one, column) for one in read))):
        _refuse_unclear(files.root, unclear, is_multi_label=are_attributes)
    if is_divided_twice:
        kinds = dict.fromkeys(kinds, "")  # divided in several ways
    kinds = kinds or by_column
    known = {image: label for image, (label, _) in labels.items()}
    return Stated(known, list_some(sources, separator="; "), used, kinds=kinds, groups=groups)


def _refuse_unclear(root: str, unclear: Sequence[str], *, is_multi_label: bool) -> NoReturn:
    """Raises a ConfigError with the tables in which no column has the classes for certain."""
    question = "; which one has the classes? data.label_field=COLUMN names it"
    question += " (of 0 and 1, of which images have several or none, as in a multi-label set)" * is_multi_label
    is_without = all(line.endswith((_NO_TEXT, _MEASURED)) for line in unclear)
    raise ConfigError(f"{root}: {'; '.join(unclear)}{question * (not is_without)}")


def _describe_columns(table: Table, others: Sequence[int]) -> str:
    """Returns a line about a table in which no column has the classes for certain, for a message."""
    with_text = [number for number in others if any(map(any, table.column(number).values()))]
    measured = with_text != [] and all(_is_measured(table, number) for number in with_text)
    shown = ", ".join(map(table.name, with_text or others))
    if not table.has_header:
        return (
            f"{table.path} names the images and has {len(table.header)} columns without names, which a first line gives"
        )
    return (
        f"{table.path} names the images and has the columns {shown}{_NO_TEXT * (not with_text)}{_MEASURED * measured}"
    )


def _find_classes(table: Table, key: int, column: str | None) -> tuple[int | None, dict[str, set[str]]]:
    """Returns the column of classes and its texts by image; None and the classes if every class has a column."""
    others = [number for number in range(len(table.header)) if number != key]
    names = {header_of(table, number): number for number in reversed(others)}
    if column is not None:
        chosen = names.get(_spell(column))
        return chosen, {} if chosen is None else texts_of(table, chosen)
    splits = find_column(table, key)[0]
    possible = [
        number
        for number in others
        if header_of(table, number) not in NO_CLASSES and are_classes(table.column(number))
        if number != splits
    ]
    for header in HEADERS:
        if (chosen := names.get(header)) in possible:
            return chosen, texts_of(table, chosen)
    if marked := _one_of_each(table, others):
        return None, marked
    if len(possible) != 1 or (len(others) > 1 and all(_are_marks(table.column(number)) for number in others)):
        return None, {}  # a column of 0 and 1 beside others, of which an image has several or none
    if any(_is_measured(table, number) for number in others):
        return None, {}  # as the bone age beside the sex: what the set is about may be the measurement
    return possible[0], texts_of(table, possible[0])


def _is_measured(table: Table, number: int) -> bool:
    """Whether a column has numbers of which most images have their own, and that neither count nor name the images."""
    words = header_of(table, number).split("_")
    if header_of(table, number) in NO_CLASSES or not {"id", "index", "number", "unnamed:"}.isdisjoint(words):
        return False
    texts = [text for stated in texts_of(table, number).values() for text in stated]
    if len(texts) < 2 or not all(map(_NUMBER.fullmatch, texts)):
        return False
    values = set(map(float, texts))
    is_count = len(values) == len(texts) and max(values) - min(values) == len(values) - 1
    return 2 * len(values) > len(texts) and not is_count


def _find_known_classes(table: Table, classes: Collection[str]) -> tuple[int | None, dict[str, set[str]]]:
    """Returns a column with the usual header that has nothing but classes of other tables, and its texts by image."""
    names = {header_of(table, number): number for number in reversed(range(len(table.header)))}
    for header in HEADERS:
        if header in names:
            stated = texts_of(table, names[header])
            texts = {text for one in stated.values() for text in one}
            return (names[header], stated) if texts and texts <= set(classes) else (None, {})
    return None, {}


def _is_certain(one: _Read, column: str | None) -> bool:
    """Whether the classes of a table are certain, and not those of the only possible column."""
    table, _, number, stated = one
    header = "" if number is None else header_of(table, number)
    return bool(stated) and (number is None or column is not None or header in HEADERS)


def _without_guesses(read: Sequence[_Read], column: str | None) -> list[_Read]:
    """Returns tables without the columns that are classes for being the only possible ones, where others are certain.

    As the ages in the metadata beside a column ``target``, or in those of test, of which no classes are published. A
    column that has the header or the classes of a certain one is another part of it.
    """

    def is_of_train(one: _Read) -> bool:
        return bool(one[3]) and split_of(one[0].path.rpartition("/")[2]) not in ("val", "test")

    certain = [one for one in read if _is_certain(one, column)] or [one for one in read if is_of_train(one)]
    headers = {cell_of(table.header, number) for table, _, number, _ in certain if number is not None}
    known = {text for _, _, _, stated in certain for one in stated.values() for text in one}

    def is_part(one: _Read) -> bool:
        table, _, number, stated = one
        texts = {text for labels in stated.values() for text in labels}
        return (number is not None and cell_of(table.header, number) in headers) or 2 * len(texts & known) > len(texts)

    return [one if one in certain or is_part(one) else (*one[:2], None, {}) for one in read] if certain else list(read)


def _stated_classes(table: Table, number: int, classes: Collection[str]) -> dict[str, set[str]]:
    """Returns the classes that a column states, by image; without the images for which it has other texts."""
    stated = {
        image: {one for text in texts if (one := _class_of(text, classes)) is not None}
        for image, texts in _column_of(table, number).items()
    }
    return {image: known for image, known in stated.items() if known}


def _column_of(table: Table, number: int) -> dict[str, set[str]]:
    """Returns the texts of a column by image, the last one with what follows in rows that are longer than the header.

    As of ``3.jpg ant dog`` in a list whose other rows have one class.
    """
    if number < len(table.header) - 1 or not any(
        row[len(table.header) :] for some in table.rows.values() for row in some
    ):
        return table.column(number)
    return {image: {" ".join(row[number:]).strip() for row in some} for image, some in table.rows.items()}


def header_of(table: Table, number: int) -> str:
    """Returns the header of a column in the spelling of ``HEADERS``: ``class_name`` of ``Class-Name``."""
    return _spell(cell_of(table.header, number))


def _spell(header: str) -> str:
    return re.sub(r"[-\s]+", "_", header.strip().lower())


def texts_of(table: Table, number: int) -> dict[str, set[str]]:
    """Returns the texts of a column by image, without marks of missing ones."""
    return {image: known for image, texts in table.column(number).items() if (known := texts.difference(_MISSING))}


def are_classes(column: Mapping[str, set[str]]) -> bool:
    """Whether the texts are few enough to be classes rather than captions or addresses, and not names of splits."""
    texts = [text for stated in column.values() for text in stated.difference(_MISSING)]
    if {text.lower() for text in texts} <= SPLIT_WORDS.keys():
        return False
    return len(set(texts)) >= 2 and 2 * len(set(texts)) <= len(texts)


def _are_marks(column: Mapping[str, set[str]]) -> bool:
    return {as_mark(text) for texts in column.values() for text in texts} <= {"0", "1", "-1"}


def _one_of_each(table: Table, others: Sequence[int]) -> dict[str, set[str]]:
    """Returns the classes of a table that has a column of 0 and 1 for each class; empty if it is none."""
    if len(others) < 2:
        return {}
    marked: dict[str, set[str]] = {}
    for image, rows in table.rows.items():
        for row in rows:
            numbers = [as_mark(cell_of(row, number)) for number in others]
            if sorted(numbers) != ["0"] * (len(others) - 1) + ["1"]:
                return {}
            marked.setdefault(image, set()).add(table.name(others[numbers.index("1")]))
    return marked


def _merge(files: Files, labels: dict[str, tuple[str, str]], path: str, stated: Mapping[str, set[str]]) -> None:
    """Adds the labels of one file; each is kept with the file that states it."""
    for image, texts in stated.items():
        first, *more = sorted(texts)
        if any("\udc80" <= character <= "\udcff" for character in first):  # bytes that did not decode
            raw = first.encode(errors="surrogateescape")
            raise ConfigError(
                f"{files.root}: the class of {image} in {path} is not UTF-8: {raw!r}; save the file as UTF-8, "
                "e.g. with iconv -f latin1 -t utf8"
            )
        known, before = labels.setdefault(image, (first, path))
        if more or known != first:
            other = more[0] if more else first
            where = f"both in {path}" if more else f"in {before} and {path}"
            several = sum(len(some) > 1 for some in stated.values())
            many = f" ({several:,} of {len(stated):,} images have several labels there, as of boxes or tags)"
            raise ConfigError(
                f"{files.root}: {image} is {known} and {other}, {where}; keep one of them{many * (several > 1)}"
            )


def _class_of(text: str, classes: Collection[str]) -> str | None:
    """Returns the class that a text is, or begins with; None for one with several, as ``ant dog``."""
    first = text.partition(" ")[0]
    return text if text in classes else first if first in classes and not _has_several(text, classes) else None


def _has_several(text: str, classes: Collection[str]) -> bool:
    words = split_labels(text)
    if len(words) > _BOX:  # numbers may be names of classes too, but not those of a box
        words = [words[0], *(word for word in words[1:] if not word.isdecimal())]
    return text not in classes and len(set(words).intersection(classes)) > 1


def _describe_several(table: Table, numbers: Collection[int], classes: Collection[str]) -> str:
    """Returns a remark on texts of a column that are several classes, whose images have no label then."""
    for number in numbers:
        texts = [text for some in _column_of(table, number).values() for text in some if _has_several(text, classes)]
        if texts:
            return f" ({table.path} has several classes of {len(texts):,} images, as {min(texts)!r})"
    return ""
