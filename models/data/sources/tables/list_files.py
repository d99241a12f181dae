"""Texts that name the images of a split, one a line, as ``train.txt``: which files they are, and what they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from conf.text import list_some
from models.data.sources.files.archive import ARCHIVES, Files
from models.data.sources.files.image_format import HEAD_BYTES, IMAGE_SUFFIXES, TEXT, identify_format
from models.data.sources.split_names import SHORT_WORDS, names_no_class, split_of, words_of
from models.data.sources.tables.image_names import Index, fold_name, match_name
from models.data.sources.tables.json_tables import JSON, JSON_LINES, read_json_names
from models.data.sources.tables.matlab import MATLAB
from models.data.sources.tables.reading import MAX_BYTES, SUFFIXES, TABLES, decode, is_of_predictions

LISTED = 0.9  # of the lines of a list that name an image of the set; the others are a header, or images that lack
_MAX_LISTS = 20  # of a folder, that may be splits; more are about single images or classes
_NAME_BYTES = 0.1  # of a list per image of the set; of less it is a readme, or names few
_LIST = re.compile(r"lists?(?![a-z])", re.IGNORECASE)
_FRACTION = re.compile(r"[+-]?\d*\.\d+")
_YAML = (".yaml", ".yml")  # of which lists are read, but not objects
_PACKED = (".gz", ".zip", ".bz2", ".xz")
_UNREAD = (
    *(".mat", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".parquet", ".feather", ".arrow", ".xlsx", ".xls", ".ods"),
    *(".h5", ".xml", ".toml", *(f"{end}{packed}" for end in (*TABLES, *_YAML) for packed in _PACKED)),
    *(*_YAML, JSON, *JSON_LINES),
)
_DIVISIONS = frozenset(
    ("split", "splits", "partition", "partitions", "fold", "folds")
)  # in names of lists of all splits


def read_name(path: str) -> tuple[str, str]:
    """Returns the folder of a list, and its name without suffix and the word list, which is none of its content.

    The name of its folder counts where that of the file says nothing, as of ``train/files.txt``.
    """
    folder, _, name = path.rpartition("/")
    stem = _LIST.sub(" ", name.rpartition(".")[0] or name)
    above, _, last = folder.rpartition("/")
    says_nothing = not words_of(stem) or (names_no_class(stem) and split_of(stem, both="both") is None)
    return (above, last) if says_nothing and split_of(last, both="both") is not None else (folder, stem)


def place_of(path: str) -> tuple[str, str]:
    """Returns the folder of a list, and its numbers, which tell the lists of several divisions apart."""
    folder, stem = read_name(path)
    return folder, " ".join(re.findall(r"\d+", stem))


def may_list(files: Files, row: int, count: int) -> bool:
    """Whether a file is a text that is large enough to name a part of so many images, by its name and size."""
    path = files.names[row]
    name = path.rpartition("/")[2].lower()
    if name.endswith(IMAGE_SUFFIXES):
        return False
    if name.endswith(MATLAB):  # which are compressed
        return bool(files.sizes[row] <= MAX_BYTES)
    if not _NAME_BYTES * count <= files.sizes[row] <= MAX_BYTES or is_of_predictions(path.rpartition("/")[2]):
        return False
    is_other = name.endswith((*ARCHIVES, *_UNREAD)) and not name.endswith((*TABLES, *_YAML))
    stem = read_name(path)[1]
    is_named = split_of(stem, both="both") is not None or not _DIVISIONS.isdisjoint(words_of(stem))
    return name.endswith(TABLES) or (not is_other and is_named)


def find_lists(files: Files, index: Index, count: int) -> Iterator[tuple[str, str, set[str], bool]]:
    """Yields each text that is named after a split: its kind, the images that it names, and whether most lines do.

    Texts of other suffixes than those of tables may be about anything, and are skipped if they name none.
    """
    short = _find_short(files)
    for row, path in enumerate(files.names):
        name = path.rpartition("/")[2]
        kind = short.get(path) or split_of(read_name(path)[1], both="trainval")
        if kind is None or _is_of_image(name, index) or not may_list(files, row, count):
            continue
        named, is_whole = _read_images(files, row, index)
        if named or (is_whole is not None and name.lower().endswith(SUFFIXES)):
            yield path, kind, named, bool(is_whole)


def describe_divisions(files: Files, index: Index, labels: Mapping[str, int]) -> str:
    """Returns a line about lists that divide the images without being named after splits; empty for none.

    As ``treino.txt`` beside ``teste.txt``. Lists of the images of one class each are about classes.

    Args:
        files: The tree.
        index: The images, which the lists may name.
        labels: The class of each image.
    """
    count = len(labels)
    folders: dict[str, list[int]] = {}
    for row, path in enumerate(files.names):
        folder, _, name = path.rpartition("/")
        if name.lower().endswith(SUFFIXES) and not _is_of_image(name, index) and may_list(files, row, count):
            folders.setdefault(folder, []).append(row)
    for rows in folders.values():
        if not 1 < len(rows) <= _MAX_LISTS:
            continue
        read = {files.names[row]: _read_images(files, row, index) for row in rows}
        lists = {path: named for path, (named, is_whole) in read.items() if named and is_whole}
        every = set().union(*lists.values())
        classes = [{labels[image] for image in named} for named in lists.values()]
        is_divided = len(lists) > 1 and sum(map(len, lists.values())) == len(every) >= LISTED * count
        if is_divided and sum(map(len, classes)) > len(set().union(*classes)):
            return (
                f"splits are drawn, not those of {list_some(sorted(lists))}, which divide the images: if they are "
                "splits, name them train, val and test"
            )
    return ""


def _find_short(files: Files) -> dict[str, str]:
    """Returns the kinds of lists with short names of train and a held-out split, as ``tr.txt`` beside ``te.txt``."""
    folders: dict[str, dict[str, str]] = {}
    for path in files.names:
        folder, _, name = path.rpartition("/")
        if kind := SHORT_WORDS.get(name.rpartition(".")[0].lower()):
            folders.setdefault(folder, {})[path] = kind
    return {
        path: kind
        for kinds in folders.values()
        if "train" in kinds.values() and len(set(kinds.values())) > 1
        for path, kind in kinds.items()
    }


def _is_of_image(name: str, index: Index) -> bool:
    return (name.rpartition(".")[0] or name) in index.images


def _read_images(files: Files, row: int, index: Index) -> tuple[set[str], bool | None]:
    """Returns the images that a list names, and whether most of its lines name one; None of no lines."""
    lines = read_lines(files, row)
    matches = [match_line(line, index.images) for line in lines]
    if not any(matches) and lines:
        matches = [match_line(fold_name(line), index.folded) for line in lines]
    named = {image for image in matches if image is not None}
    return named, sum(image is not None for image in matches) >= LISTED * len(lines) - 1 if lines else None


def describe_unread(files: Files, images: Sequence[str]) -> str:
    """Returns a line about files that may have the splits and are not read, as ``lists/train_list.mat``."""
    large = np.flatnonzero(files.sizes >= _NAME_BYTES * len(images)).tolist()  # which a million images are not
    names = [files.names[row] for row in large if _may_divide(files.names[row])]
    # JSON about the images of train alone may have the labels of all images.
    is_of_all = all(
        path.lower().endswith((JSON, *JSON_LINES)) and split_of(read_name(path)[1]) == "train" for path in names
    )
    if is_of_all:
        return ""
    return f"splits are drawn, not those of files that are not read: {list_some(sorted(names))}"


def read_lines(files: Files, row: int) -> list[str]:
    """Returns the lines of a list, the words of one in a single line, or the texts of a list in JSON."""
    name = files.names[row].lower()
    if name.endswith(MATLAB):
        return []
    data = files.read(row)
    if name.endswith(JSON):
        return read_json_names(decode(data))
    if not name.endswith(TABLES) and identify_format(data[:HEAD_BYTES]) != TEXT:
        return []
    lines = [line.strip() for line in decode(data).splitlines() if line.strip()]
    if name.endswith(JSON_LINES):
        return lines if all(line.startswith('"') for line in lines) else []
    return lines if len(lines) > 1 else [word for line in lines for word in re.split(r"[][(),;\t| ]+", line) if word]


def match_line(line: str, index: Mapping[str, str | None]) -> str | None:
    """Returns the image that a line of a list names, alone or in a column."""
    first, *others = re.split(r"[,;\t| ]+", line)
    others = [text for text in others if _FRACTION.fullmatch(text) is None]  # as 0.0, which is no image 0.jpg
    for text in (line, line.rpartition(" ")[0].strip(), first, *others):
        if text and (image := match_name(text.strip(" '\""), index)) is not None:
            return image
    return None


def _may_divide(path: str) -> bool:
    """Whether a file may have splits by its name: that of a split in a format that is not read, or of all splits."""
    is_unread, is_table = path.lower().endswith(_UNREAD), path.lower().endswith(TABLES)
    if not (is_unread or is_table):
        return False
    stem = read_name(path)[1]
    return not _DIVISIONS.isdisjoint(words_of(stem)) or (is_unread and split_of(stem) is not None)
