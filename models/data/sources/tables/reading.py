"""Reads tables beside images: CSV, JSON lines and the like, of which a column names the images.

A table in a folder with images is about these, one that is named after a split about those of the split.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from conf.text import logger
from models.data.sources.files.archive import Files
from models.data.sources.split_names import split_of, words_of
from models.data.sources.tables.image_names import Index, fold_name, index_images, index_split, list_below, match_name
from models.data.sources.tables.json_tables import JSON, JSON_LINES, are_json_lines, read_json, read_json_lines
from models.data.sources.tables.matlab import MATLAB, read_matlab

log = logger()
MAX_BYTES = 256 * 2**20
SUFFIXES = (".csv", ".tsv", ".txt", ".lst")  # the last of MXNet and SageMaker
TABLES = (*SUFFIXES, *JSON_LINES, JSON, MATLAB)
_FEW = 20  # MATLAB files in a folder that may be lists; more are the boxes of an image each, as in Caltech-101
_HEAD_BYTES = 4096  # of a table, in which its form shows
_SEPARATORS = (",", ";", "\t", "|", " ")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_PREDICTIONS = ("submission", "submissions", "prediction", "predictions")  # ends of words in names of tables
_PREDICTED = ("pred", "preds", "predict", "predicted")  # words in names of tables that a model wrote
_QUOTES = " \t'\""


@dataclass(frozen=True)
class Table:
    """The rows of a file by the image that they are about, and the first row, which may be a header.

    ``others`` is the number of rows after the first one of an image that name none.
    """

    path: str
    header: list[str]
    rows: Mapping[str, list[list[str]]]
    others: int = 0

    def column(self, number: int) -> dict[str, set[str]]:
        """Returns the texts of a column by image."""
        return {image: {cell_of(row, number) for row in rows} for image, rows in self.rows.items()}

    @cached_property
    def has_header(self) -> bool:
        """Whether its first row is not that of an image."""
        return not any(self.header in rows for rows in self.rows.values())

    @property
    def is_bare(self) -> bool:
        """Whether it has two columns, and no header."""
        return len(self.header) == 2 and not self.has_header

    def describe_rows(self, labels: Collection[str] = ()) -> str:
        """Returns a remark on rows of images that are absent, or with more columns than the header; empty for none.

        Args:
            labels: Texts that are classes, which may be in the further columns too.
        """
        named = [row for rows in self.rows.values() for row in rows]
        remarks = []
        if self.others:
            remarks.append(f"{self.others:,} of {self.others + len(named):,} rows name no image that is here")
        longer = [row for row in named if any(row[len(self.header) :])]
        if longer:
            further = {cell.strip(_QUOTES) for row in longer for cell in row[len(self.header) :]} - {""}
            what = "have more columns than the header"
            remedy = "quote texts with separators"
            if further <= set(labels):
                what = "have several labels, of which the first counts"
                remedy = "such images of a multi-label set belong to no single class, so remove their rows"
            remarks.append(f"{len(longer):,} rows {what}, first that of {longer[0][0]}: {remedy}")
        return f"{self.path}: {'; '.join(remarks)}" if remarks else ""

    def name(self, number: int) -> str:
        """Returns the header of a column, for messages."""
        return (self.has_header and cell_of(self.header, number)) or f"number {number + 1}"


def join_words(table: Table, key: int) -> Table:
    """Returns a list without a header of names and labels of several words with these in one column.

    As ``1345202 British Aerospace`` beside ``1025794 Boeing`` of FGVC-Aircraft. Words that begin other labels, too,
    are several labels of an image.
    """
    rows = [row for some in table.rows.values() for row in some]
    if (
        table.has_header
        or key != 0
        or len(set(map(len, rows))) == 1
        or not table.path.lower().endswith((".txt", ".lst"))
    ):
        return table
    first, further = {cell_of(row, 1) for row in rows}, {word for row in rows for word in row[2:]}
    if any(" " in cell or "," in cell for row in rows for cell in row) or not first.isdisjoint(further):
        return table
    joined = {image: [[row[0], " ".join(row[1:])] for row in some] for image, some in table.rows.items()}
    return Table(table.path, next(iter(joined.values()))[0], joined, table.others)


def read_tables(files: Files, images: Sequence[str], suffixes: tuple[str, ...] = TABLES) -> Iterator[tuple[Table, int]]:
    """Yields each table that names images, without those of predictions, and the number of the column that does."""
    return _read_tables(files, images, lambda name: name.lower().endswith(suffixes) and not is_of_predictions(name))


def read_submissions(files: Files, images: Sequence[str]) -> Iterator[tuple[Table, int]]:
    """Yields each sample of a submission that names images, and the number of the column that does."""
    return _read_tables(files, images, lambda name: is_of_predictions(name) and "sample" in name.lower())


def _read_tables(files: Files, images: Sequence[str], is_read: Callable[[str], bool]) -> Iterator[tuple[Table, int]]:
    index = index_images(images)
    in_order = sorted(images)

    @cache
    def other_files() -> frozenset[str]:
        return frozenset(name for name in files.names if name not in index and match_name(name, index) is None)

    # Many tables, as a text for each image, share a folder and the split that they are named after.
    @lru_cache(maxsize=8)
    def indexes(folder: str, kind: str | None) -> list[Index]:
        below = list_below(in_order, folder)
        few = [Index(index_images(below))] if 0 < len(below) < len(images) else []
        return [*few, of_split(kind)]

    @cache
    def of_split(kind: str | None) -> Index:
        return Index(index_split(index, images, kind))

    matlab_files = Counter(name.rpartition("/")[0] for name in files.names if name.lower().endswith(MATLAB))
    for row, path in enumerate(files.names):
        folder, _, name = path.rpartition("/")
        is_of_image = name.rpartition(".")[0] in index  # boxes or a caption of one image
        if not name.lower().endswith(TABLES) or is_of_image or files.sizes[row] > MAX_BYTES:
            continue
        if not is_read(name):
            continue
        if name.lower().endswith(MATLAB) and matlab_files[folder] > _FEW:
            continue
        data = files.read(row)
        chosen: tuple[Table, int] | None = None
        kind = next((kind for part in reversed(path.split("/")) if (kind := split_of(part)) is not None), None)
        for known in indexes(folder, kind):
            # On Windows and macOS a.JPG and a.jpg are one file, and macOS writes accents as characters of their kind.
            table = _try_forms(path, data, known.images, str)
            if table is None and not _names_file(data, other_files()):  # as Meta/0.png of GTSRB, no Test/00000.png
                table = _try_forms(path, data, known.folded, fold_name)
            # The images of its folder count, unless they are few of those that it names.
            if table is not None and (chosen is None or 2 * len(chosen[0].rows) < len(table[0].rows)):
                chosen = table
        if chosen is not None:
            yield chosen


def _names_file(data: bytes, names: Collection[str]) -> bool:
    """Whether one of the first lines of a table has a cell that is the path of a file."""
    lines = data[:_HEAD_BYTES].decode(errors="replace").splitlines()
    return any(cell.strip(" '\"") in names for line in lines for cell in re.split(r"[,;\t|]", line))


def describe_large(files: Files) -> str:
    """Returns a remark on the first table that is too large to be read; empty for none."""
    for row, path in enumerate(files.names):
        if path.lower().endswith(TABLES) and files.sizes[row] > MAX_BYTES:
            return (
                f"{path} has {files.sizes[row] / 2**20:,.0f} MiB and is not read, tables have at most "
                f"{MAX_BYTES / 2**20:,.0f} MiB: if it has names of images and their classes or splits, save these "
                "columns alone as a CSV file"
            )
    return ""


def warn_of_predictions(files: Files) -> None:
    """Logs which tables are not read because of their names, except samples of a submission."""
    for path in files.names:
        name = path.rpartition("/")[2]
        if name.lower().endswith((*SUFFIXES, *JSON_LINES)) and is_of_predictions(name) and "sample" not in name.lower():
            log.warning("%s: %s is not read, because it is named after predictions", files.root, path)


def is_of_predictions(name: str) -> bool:
    """Whether a table is named after predictions, as ``sampleSubmission.csv``, but not ``predictive_quality.csv``."""
    return any(word.endswith(_PREDICTIONS) or word in _PREDICTED for word in words_of(name.rpartition(".")[0]))


def may_label(text: str, index: Mapping[str, str | None], count: int, *, is_named: bool, is_of_other: bool) -> bool:
    """Whether a text may have a class for each image of a test split, and does not only list their names.

    Args:
        text: Content of a file.
        index: The images, as ``index_images`` returns them.
        count: Number of the images.
        is_named: Whether the path of the file names the split: then a line for most images is enough.
        is_of_other: Whether the path names another split.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = [cell for cell in re.split(r"[,;\t| ]+", lines[0]) if cell.strip()]
    is_exact = not is_of_other and count <= len(lines) <= count + 1 and _may_be_labels(lines)  # with a header
    if not is_exact and not (is_named and 2 * len(lines) > count):
        return False
    # Of an aligned list with spaces the name is the first word; labels may be names of images too, but repeat.
    first = {part.strip(_QUOTES) for line in lines for part in (re.split(r"[,;\t|]", line)[0], line.split()[0])}
    return 2 * len({match_name(part, index) for part in first} - {None}) <= len(lines)


def _may_be_labels(lines: Sequence[str]) -> bool:
    """Whether lines repeat, as labels do, beside running numbers or not, but not beside names of images."""
    rows = [re.split(r"[,;\t| ]+", line.strip()) for line in lines]
    numbers = [[str(number + first) for number in range(len(rows))] for first in (-1, 0, 1)]  # after a header, or not
    are_numbered = any([row[0] for row in rows][1:] == one[1:] for one in numbers)
    return len({tuple(row[are_numbered:]) for row in rows}) < len(rows)


def has_one_for_each(text: str, count: int) -> bool:
    """Whether JSON is, or has by a key, a list or an object of as many labels as there are images."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    inside = content.values() if isinstance(content, dict) else ()
    return any(isinstance(one, list | dict) and len(one) == count for one in (content, *inside))


def _try_forms(
    path: str, data: bytes, index: Mapping[str, str | None], spelled: Callable[[str], str]
) -> tuple[Table, int] | None:
    """Returns the table in a file by the form that its suffix states."""
    suffix = path[path.rindex(".") :].lower()
    if suffix == MATLAB:
        return _read_table(path, read_matlab(data, set(filter(None, index.values()))), index, spelled)
    text = decode(data)
    if suffix in (*JSON_LINES, JSON) or are_json_lines(text):
        return _read_table(path, (read_json if suffix == JSON else read_json_lines)(path, text), index, spelled)
    return _try_separators(path, text, index, spelled)


def _try_separators(
    path: str, text: str, index: Mapping[str, str | None], spelled: Callable[[str], str]
) -> tuple[Table, int] | None:
    """Returns the table by the separator that names the most images, most with suffix, in the shortest cells."""
    best, score = None, (0, 0, 0)
    lines = sum(map(bool, map(str.strip, text.splitlines())))
    for separator in _SEPARATORS:
        read = _read_table(path, _divide(text, separator), index, spelled) if separator in text else None
        if read is None:
            continue
        cells = [(cell_of(row, read[1]), image) for image, rows in read[0].rows.items() for row in rows]
        whole = sum(cell.endswith(image.rpartition("/")[2]) for cell, image in cells)
        if (rank := (len(read[0].rows), whole, -sum(len(cell) for cell, _ in cells))) > score:
            best, score = read, rank
        is_divided = not any(other in cell for cell, _ in cells for other in _SEPARATORS)
        if is_divided and whole == len(cells) and len(read[0].rows) >= lines - 1:
            break  # an image in every line but the header, whose name no other separator divides further
    return best


def _divide(text: str, separator: str) -> list[list[str]]:
    """Returns the rows of a text with columns; empty if it is damaged."""
    csv.field_size_limit(MAX_BYTES)
    if separator == " ":  # columns are often aligned by several
        text = "\n".join(" ".join(line.replace('"', "").split()) for line in text.splitlines())
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except csv.Error:
        return []


def decode(data: bytes) -> str:
    """Returns the text of a table: UTF-16 where its mark says so, otherwise UTF-8, of which damaged bytes are kept."""
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")


def _read_table(
    path: str, rows: Sequence[list[str]], index: Mapping[str, str | None], spelled: Callable[[str], str]
) -> tuple[Table, int] | None:
    """Returns the table and the column that names the most images, if several do, with suffix; None if none does.

    Args:
        path: Name of the file.
        rows: Its rows, with the header if it has one.
        index: Images by the ends of their paths, as ``index_images`` or ``_fold`` returns them.
        spelled: Function from a name in the table to its spelling in the index.
    """
    width = max(map(len, rows), default=0)
    if width < 2 or width > 10_000:
        return None
    best: dict[str, list[list[str]]] = {}
    key, score = 0, (0, 0)
    for number in range(min(width, 100)):
        named: dict[str, list[list[str]]] = {}
        whole = 0
        for row in rows:
            if image := match_name(spelled(cell := cell_of(row, number)), index):
                named.setdefault(image, []).append(row)
                whole += cell.endswith(image.rpartition("/")[2])
        if (len(named), whole) > score:
            best, key, score = named, number, (len(named), whole)
    if not best:
        return None
    of_images = [row for some in best.values() for row in some]
    known = set(map(id, of_images))
    first = next(number for number, row in enumerate(rows) if id(row) in known)
    others = sum(bool(cell_of(row, key)) and id(row) not in known for row in rows[first:])
    return Table(path, _find_header(rows, first, of_images, key), best, others), key


def _find_header(rows: Sequence[list[str]], first: int, named: Sequence[list[str]], key: int) -> list[str]:
    """Returns the first row with as many columns as most rows of images have, or the headers of all but the first.

    As in CelebA's ``list_attr_celeba.txt``, whose column of names has no header. Of several comments only the first may
    be a header, as of ``annotations/list.txt`` of Oxford-IIIT Pet.

    Args:
        rows: All rows.
        first: Index of the first one of an image.
        named: Those of images.
        key: The column of their names.
    """
    widths = Counter(map(len, named))
    comments = [row for row in rows[:first] if row[0].startswith("#")]
    above = [row for row in rows[:first] if not any(row is comment for comment in comments[1:])]
    header = next((row for row in above if len(row) in widths), None)
    if header is not None:
        return header
    width = widths.most_common(1)[0][0]
    shorter = next((row for row in above if len(row) == width - 1), None)
    if (
        shorter is not None
        and key == 0
        and width > 2
        and len(widths) == 1
        and any(cell_of(row, width - 1) for row in named)
    ):
        return ["", *shorter]
    return next(row for row in named if len(row) == width)


def cell_of(row: Sequence[str], number: int) -> str:
    """Returns the text in a column without quotes; empty in a row that is too short."""
    return row[number].strip(_QUOTES) if number < len(row) else ""
