"""Lists of splits that name the images in a form that is not read, which are refused rather than ignored.

Splits drawn in place of stated ones mix the held-out images with those of train, which no number shows later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.files.archive import Files
from models.data.sources.split_names import SPLIT_WORDS, split_of, words_of
from models.data.sources.splits import WHOLE_TREE
from models.data.sources.tables.image_names import Index, match_name
from models.data.sources.tables.json_tables import JSON
from models.data.sources.tables.list_files import match_line, may_list, read_lines, read_name
from models.data.sources.tables.reading import decode

_DIVISIONS = frozenset(("split", "splits", "partition", "partitions"))  # folds are several divisions of the images
_SAMPLED = 20  # lines of a list
_UNIQUE = 5  # characters of a name, at least, that is searched within others
_SHOWN = 60  # characters of a line in a message
_FORMS = (
    "lists train, val and test with one name of an image a line, with or without folders and suffix; a table with a "
    "column split of train, val and test; JSON with a list for each split"
)
_IGNORED = f"data.train_folders=[{WHOLE_TREE}] draws the splits and ignores such files"


def refuse_unread(
    files: Files, images: Sequence[str], index: Index, texts: Sequence[tuple[str, str, set[str], bool]]
) -> None:
    """Refuses lists of splits whose lines resemble names of the images, or are their numbers.

    Args:
        files: The tree.
        images: Paths of the images.
        index: The same by the ends of their paths.
        texts: Lists named after splits, as ``find_lists`` returns them, of which no complete division is read.

    Raises:
        ConfigError: There are such lists.
    """
    rows = {path: row for row, path in enumerate(files.names)}
    unread = {path: named for path, kind, named, is_whole in texts if kind not in ("val", "test") and not is_whole}
    held_out = [path for path, kind, named, is_whole in texts if kind in ("val", "test") and not is_whole]
    for path in (*unread, *_list_divisions(files, len(images))):
        beside = held_out if path in unread else []
        lists = [read_lines(files, rows[one]) for one in (path, *beside)]
        lines = lists[0]
        if path.lower().endswith(JSON):
            why = _describe_json(decode(files.read(rows[path])), len(images))
        elif 2 * sum(map(len, lists)) < len(images):
            continue  # numbers of images by split, a part of a log
        else:
            why = _describe_numbers(lists, len(images)) or _describe_lines(lines, images, index)
        if why and unread.get(path):
            others = [line for line in lines if match_line(line, index.images) is None]
            why = f"{len(others):,} of {len(lines):,} lines name no image, as {others[0][:_SHOWN]!r}"
        if why:
            verb = "state" if beside else "states"
            raise ConfigError(
                f"{files.root}: {list_some([path, *beside])} {verb} splits in a form that is not read: {why}. Read are "
                f"{_FORMS}; {_IGNORED}"
            )


def describe_partial(texts: Sequence[tuple[str, str, set[str], bool]], count: int) -> str:
    """Returns a line about lists of splits that name few of the images among others; empty for none."""
    partial = [(path, named) for path, _, named, is_whole in texts if named and not is_whole]
    if not partial:
        return ""
    named = len(set().union(*(some for _, some in partial)))
    paths = list_some(sorted(path for path, _ in partial))
    return f"splits are drawn: {paths} name {named:,} of {count:,} images, among lines that name none"


def _list_divisions(files: Files, count: int) -> Iterator[str]:
    """Yields the texts and JSON named after divisions, as ``split.csv``, that are large enough for so many images."""
    for row, path in enumerate(files.names):
        if may_list(files, row, count) and not _DIVISIONS.isdisjoint(words_of(read_name(path)[1])):
            yield path


def _describe_numbers(lists: Sequence[Sequence[str]], count: int) -> str:
    """Returns what lists of train and held-out images are if all have numbers alone, about one for each image."""
    total = sum(map(len, lists))
    are_numbers = all(line.strip(",").isdecimal() for lines in lists for line in lines)
    if len(lists) > 1 and all(lists) and are_numbers and 0.9 * count <= total <= 1.1 * count:
        return f"its lines are numbers, as {lists[0][0]!r}, and not names"
    return ""


def _describe_lines(lines: Sequence[str], images: Sequence[str], index: Index) -> str:
    """Returns how a line names an image if most lines do; empty for other texts, as a log of training."""
    sample = lines[:: max(1, len(lines) // _SAMPLED)]
    keys = {key: image for image in images for key in _keys_of(image)}
    stems = {stem: image for image in images if len(stem := _stem_of(image)) >= _UNIQUE}
    described = [why for line in sample if (why := _describe_line(line, index, keys, stems))]
    return described[0] if sample and 2 * len(described) >= len(sample) else ""


def _describe_line(line: str, index: Index, keys: dict[str, str], stems: dict[str, str]) -> str:
    """Returns which image a line resembles; empty for none."""
    shown = repr(line[:_SHOWN])
    words = [word for part in re.split(r"[,;\t| ]+", line) if (word := part.strip(" '\"-"))]
    if words and words[0].isdecimal() and words[-1].lower() in SPLIT_WORDS:
        return f"{shown} has a number, and no name of an image"
    named = {image for word in words if (image := match_name(word, index.images)) is not None}
    if named:
        return f"{shown} names " + ("several images" if len(named) > 1 else "an image and none of these splits")
    for word in words:
        if word in index.images:
            return f"{shown} names several images: write the folders, too"
        if (image := next((keys[key] for key in _keys_of(word) if key in keys), None)) is not None:
            return f"{shown} resembles {image}"
        if (image := next((image for stem, image in stems.items() if stem in word), None)) is not None:
            return f"{shown} resembles {image}"
    return ""


def _keys_of(path: str) -> set[str]:
    """Returns what a name has in common with similar ones: its letters and digits alone, its folder and number."""
    folder, _, stem = path.replace("\\", "/").rpartition("/")
    stem = _stem_of(stem)
    last = folder.rpartition("/")[2]
    number = re.search(r"\d+$", stem)
    keys = {re.sub(r"[\W_]+", "", f"{last}{stem}").casefold()} if last or not stem.isdecimal() else set()
    return keys | ({f"{last.casefold()}/{int(number[0])}"} if number and last else set())


def _stem_of(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _describe_json(text: str, count: int) -> str:
    """Returns what JSON is that has lists by split, of about as many entries as there are images; empty for others."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(content, dict):
        return ""
    lists = {key: value for key, value in content.items() if isinstance(value, list) and split_of(key)}
    total = sum(map(len, lists.values()))
    if len(lists) < 2 or not 0.5 * count <= total <= 1.1 * count:
        return ""
    key, first = next((key, value[0]) for key, value in lists.items() if value)
    return f"{key} has {str(first)[:_SHOWN]!r}, which names no image"
