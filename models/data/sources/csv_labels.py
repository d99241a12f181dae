"""Labels of images from tables beside them (CSV and the like), as in Kaggle's data sets.

A table has a column with names of the images, with or without folders and suffix, and a column of classes, or of texts
whose first word is a class. Commas, semicolons, tabs, bars or spaces separate its columns.

Sources of the layouts: ``LOC_val_solution.csv`` of kaggle.com/c/imagenet-object-localization-challenge (columns ImageId
and PredictionString, whose first word is the class), ``labels.csv`` of dog-breed-identification, ``train.csv`` of
cassava-leaf-disease-classification and of plant-pathology-2020-fgvc7 (a column of 0 and 1 for each class).
"""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from conf.text import logger
from infra.errors import ConfigError
from models.data.sources.archive import Files
from models.data.sources.splits import SPLIT_WORDS, split_of

log = logger()
SUFFIXES = (".csv", ".tsv", ".txt")
_MAX_BYTES = 256 * 2**20
_SEPARATORS = (",", ";", "\t", "|", " ")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_OTHER_TABLES = (".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".parquet", ".feather", ".pkl", ".mat", ".h5")
_PACKED = (".gz", ".zip", ".bz2", ".xz", ".7z")
_PREDICTIONS = ("submission", "predict")  # in names of tables that a model wrote
_SHOWN = 60  # characters of a line in a message
_MISSING = ("", "nan", "NaN")  # as pandas writes them
_QUOTES = " \t'\""
# Headers of columns of classes, the first that a table has; names of classes precede their numbers.
_HEADERS = (
    *("class_name", "classname", "label_name", "category_name", "class", "label", "labels", "category", "target"),
    *("breed", "species", "diagnosis", "variety", "class_id", "label_id", "category_id", "classid", "dx"),
)
# Headers of columns that are no classes, whatever they hold.
_NO_CLASSES = ("split", "set", "subset", "fold", "folds", "usage", "partition", "width", "height", "size")


@dataclass(frozen=True)
class _Table:
    """The rows of a file by the image that they are about, and the first row, which may be a header."""

    path: str
    header: list[str]
    rows: Mapping[str, list[list[str]]]

    def column(self, number: int) -> dict[str, set[str]]:
        """Returns the texts of a column by image."""
        return {image: {_cell(row, number) for row in rows} for image, rows in self.rows.items()}

    def name(self, number: int) -> str:
        """Returns the header of a column, for messages."""
        return _cell(self.header, number) or f"number {number + 1}"


def read_labels(files: Files, images: Sequence[str], classes: Collection[str]) -> tuple[dict[str, str], str]:
    """Reads which of the given classes images are in, from all tables in the tree except submissions and predictions.

    Args:
        files: The tree.
        images: Paths of the images without a class folder.
        classes: Names that count as classes.

    Returns:
        The class of each image that a file states, and a remark on a file that names images without their classes.

    Raises:
        ConfigError: Different classes are stated for one image, or several columns of a table could be the classes.
    """
    labels: dict[str, tuple[str, str]] = {}
    remark = ""
    for table, key in _tables(files, images):
        possible = {
            number: stated
            for number in range(len(table.header))
            if number != key and _cell(table.header, number).lower() not in _NO_CLASSES
            if 2 * len(stated := _stated_classes(table, number, classes)) > len(table.rows)
        }
        if not possible:
            remark = remark or f" ({table.path} names images, but no column of it has these classes)"
            continue
        named = {_cell(table.header, number).lower(): number for number in reversed(possible)}
        usual = next((named[header] for header in _HEADERS if header in named), None)
        if usual is None and any(stated != next(iter(possible.values())) for stated in possible.values()):
            columns = ", ".join(map(table.name, possible))
            raise ConfigError(
                f"{files.root}: in {table.path} the columns {columns} hold names of classes, and differ; call the "
                "right one 'label'"
            )
        _merge(files, labels, table.path, possible[next(iter(possible)) if usual is None else usual])
    return {image: label for image, (label, _) in labels.items()}, remark


def read_classes(files: Files, images: Sequence[str], column: str | None) -> tuple[dict[str, str], str]:
    """Reads the classes of images that no folders divide into classes, from all tables in the tree.

    Args:
        files: The tree.
        images: Paths of the images.
        column: Header of the column with the classes; None for the usual ones, or the only possible one.

    Returns:
        The class of each image that a file states, and the files and columns as text; empty if no table names images.

    Raises:
        ConfigError: Tables name the images, but it is not clear which column has their classes, or different classes
            are stated for one image.
    """
    labels: dict[str, tuple[str, str]] = {}
    sources: list[str] = []
    unclear: list[str] = []
    for table, key in _tables(files, images):
        number, stated = _find_classes(table, key, column)
        if stated:
            _warn_of_splits(table, number)
            _merge(files, labels, table.path, stated)
            sources.append(f"{table.path}, " + ("a column per class" if number is None else table.name(number)))
        elif len(table.header) > 1:
            others = ", ".join(table.name(number) for number in range(len(table.header)) if number != key)
            unclear.append(f"{table.path} names the images and has the columns {others}")
    if unclear and not labels:
        raise ConfigError(
            f"{files.root}: {'; '.join(unclear)}; which one has the classes? data.label_field=COLUMN names it"
        )
    return {image: label for image, (label, _) in labels.items()}, "; ".join(sources)


def describe_others(files: Files, images: Sequence[str]) -> str:
    """Returns a remark on the first file that may have the labels and is not used; empty if there is none."""
    stems = _index(images)
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2].lower()
        if path.rpartition("/")[2].rpartition(".")[0] in stems:
            continue
        if name.endswith((".csv", ".tsv")) and files.sizes[row] <= _MAX_BYTES:
            lines = [line for line in _decode(files.read(row)).splitlines() if line.strip()]
            shown = ascii(lines[min(1, len(lines) - 1)][:_SHOWN]) if lines else "empty"
            return f" ({path} names none of the images; its second line is {shown})"
        packed = next((suffix for suffix in _PACKED if name.endswith(suffix)), "")
        if name.removesuffix(packed).endswith((*SUFFIXES, *_OTHER_TABLES) if packed else _OTHER_TABLES):
            return f" ({path} is not read: save its names and classes as a CSV file)"
    return ""


def _find_classes(table: _Table, key: int, column: str | None) -> tuple[int | None, dict[str, set[str]]]:
    """Returns the column of classes and its texts by image; None and the classes if every class has a column."""
    others = [number for number in range(len(table.header)) if number != key]
    names = {_cell(table.header, number).lower(): number for number in reversed(others)}
    if column is not None:
        chosen = names.get(column.lower())
        return chosen, {} if chosen is None else _stated(table, chosen)
    possible = [
        number
        for number in others
        if _cell(table.header, number).lower() not in _NO_CLASSES and _are_classes(table.column(number))
    ]
    for header in _HEADERS:
        if (chosen := names.get(header)) in possible:
            return chosen, _stated(table, chosen)
    if marked := _one_of_each(table, others):
        return None, marked
    if len(possible) != 1 or (len(others) > 1 and all(_are_marks(table.column(number)) for number in others)):
        return None, {}  # a column of 0 and 1 beside others, of which an image has several or none
    return possible[0], _stated(table, possible[0])


def _warn_of_splits(table: _Table, number: int | None) -> None:
    """Logs that a column of splits is not used, of which the division of the images would differ."""
    for other in range(len(table.header)):
        texts = (
            {text.lower() for stated in table.column(other).values() for text in stated} if other != number else set()
        )
        if len(texts) > 1 and texts <= SPLIT_WORDS.keys():
            log.warning(
                "%s: its column %s (%s) is not used: folders of these names divide the images so",
                *(table.path, table.name(other), ", ".join(sorted(texts))),
            )


def _stated_classes(table: _Table, number: int, classes: Collection[str]) -> dict[str, set[str]]:
    """Returns the classes that a column states, by image; without the images for which it has other texts."""
    return {
        image: known
        for image, texts in table.column(number).items()
        if (known := {one for text in texts if (one := _class_of(text, classes)) is not None})
    }


def _stated(table: _Table, number: int) -> dict[str, set[str]]:
    return {image: known for image, texts in table.column(number).items() if (known := texts.difference(_MISSING))}


def _are_classes(column: Mapping[str, set[str]]) -> bool:
    """Whether the texts are few enough to be classes rather than captions or addresses, and not names of splits."""
    texts = [text for stated in column.values() for text in stated if text]
    if {text.lower() for text in texts} <= SPLIT_WORDS.keys():
        return False
    return len(set(texts)) >= 2 and 2 * len(set(texts)) <= len(texts)


def _are_marks(column: Mapping[str, set[str]]) -> bool:
    return {_as_mark(text) for texts in column.values() for text in texts} <= {"0", "1"}


def _as_mark(text: str) -> str:
    """Returns 0 or 1 for the spellings of no and yes; other texts as they are."""
    return {"false": "0", "true": "1"}.get(text.lower(), text.removesuffix(".0"))


def _one_of_each(table: _Table, others: Sequence[int]) -> dict[str, set[str]]:
    """Returns the classes of a table that has a column of 0 and 1 for each class; empty if it is none."""
    if len(others) < 2:
        return {}
    marked: dict[str, set[str]] = {}
    for image, rows in table.rows.items():
        for row in rows:
            numbers = [_as_mark(_cell(row, number)) for number in others]
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
            raise ConfigError(f"{files.root}: {image} is {known} and {other}, {where}; keep one of them")


def _tables(files: Files, images: Sequence[str]) -> Iterator[tuple[_Table, int]]:
    """Yields each table that names images, and the number of the column that does."""
    index = _index(images)
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2]
        is_of_image = name.rpartition(".")[0] in index  # boxes or a caption of one image
        if not name.lower().endswith(SUFFIXES) or is_of_image or files.sizes[row] > _MAX_BYTES:
            continue
        if any(word in name.lower() for word in _PREDICTIONS):
            if "sample" not in name.lower():
                log.warning("%s: %s is not read, because it is named after predictions", files.root, path)
            continue
        text = _decode(files.read(row))
        known = _of_split(index, images, name)
        table = _try_separators(path, text, known, str)
        # On Windows and macOS a.JPG and a.jpg are one file, and macOS writes accents as characters of their kind.
        table = table or _try_separators(path, text, _fold(known), _fold_name)
        if table is not None:
            yield table


def _try_separators(
    path: str, text: str, index: Mapping[str, str | None], spelled: Callable[[str], str]
) -> tuple[_Table, int] | None:
    for separator in _SEPARATORS:
        if separator in text and (table := _read_table(path, text, separator, index, spelled)):
            return table
    return None


def _decode(data: bytes) -> str:
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")


def _read_table(
    path: str, text: str, separator: str, index: Mapping[str, str | None], spelled: Callable[[str], str]
) -> tuple[_Table, int] | None:
    """Returns the table and the column that names the most images, if several do, with suffix; None if none does.

    Args:
        path: Name of the file.
        text: Its content.
        separator: What is between two columns.
        index: Images by the ends of their paths, as ``_index`` or ``_fold`` returns them.
        spelled: Function from a name in the table to its spelling in the index.
    """
    csv.field_size_limit(_MAX_BYTES)
    if separator == " ":  # columns are often aligned by several
        text = "\n".join(" ".join(line.replace('"', "").split()) for line in text.splitlines())
    lines = io.StringIO(text, newline="")
    try:
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
    except csv.Error:
        return None
    width = max(map(len, rows), default=0)
    if width < 2 or width > 10_000:
        return None
    best: dict[str, list[list[str]]] = {}
    key, score = 0, (0, 0)
    for number in range(min(width, 100)):
        named: dict[str, list[list[str]]] = {}
        whole = 0
        for row in rows:
            if image := _match(spelled(cell := _cell(row, number)), index):
                named.setdefault(image, []).append(row)
                whole += cell.endswith(image.rpartition("/")[2])
        if (len(named), whole) > score:
            best, key, score = named, number, (len(named), whole)
    header = next((row for row in rows if len(row) == width), [])
    return (_Table(path, header, best), key) if best else None


def _cell(row: Sequence[str], number: int) -> str:
    return row[number].strip(_QUOTES) if number < len(row) else ""


def _index(images: Iterable[str]) -> dict[str, str | None]:
    """Maps the ends of paths, with and without suffix, to the image; None where several images have that end."""
    index: dict[str, str | None] = {}
    for image in images:
        parts = image.split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for text in {end, end.rpartition(".")[0] or end}:
                index[text] = None if text in index and index[text] != image else image
    return index


def _fold(index: Mapping[str, str | None]) -> dict[str, str | None]:
    """Returns the index by ``_fold_name``; None where several images have an end."""
    folded: dict[str, str | None] = {}
    for end, image in index.items():
        key = _fold_name(end)
        folded[key] = None if key in folded and folded[key] != image else image
    return folded


def _fold_name(text: str) -> str:
    """Returns a name without distinction of upper and lower case, and of the Unicode forms of one character."""
    return unicodedata.normalize("NFC", text).casefold()


def _of_split(index: Mapping[str, str | None], images: Sequence[str], name: str) -> Mapping[str, str | None]:
    """Returns the index in which names of several images mean that of the split which the table is named after."""
    kind = split_of(name)
    if kind is None or None not in index.values():
        return index
    mine = _index(image for image in images if any(split_of(part) == kind for part in image.split("/")[:-1]))
    return {end: mine.get(end) if image is None else image for end, image in index.items()}


def _match(text: str, index: Mapping[str, str | None]) -> str | None:
    """Returns the image that a text names, by the longest end of it that is the end of one image's path."""
    path = text.replace("\\", "/")
    while True:
        for end in (path, path.rpartition(".")[0]):
            if end in index:
                return index[end]
        if "/" not in path:
            return None
        path = path.partition("/")[2]


def _class_of(text: str, classes: Collection[str]) -> str | None:
    first = text.partition(" ")[0]
    return text if text in classes else first if first in classes else None
