"""Files with the names of classes in the order of labels or logits, and other small texts that settings name."""

from __future__ import annotations

import ast
import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.text import logger
from infra import store
from infra.errors import ConfigError, NotFoundError
from models.data.sources.files.container import locate

log = logger()
# ``0 ant``, ``0,ant``, ``0: ant``, ``0. ant``, ``0) ant``, ``0 - ant``; 707-320 is a name.
_NUMBERED_LINE = re.compile(r"(\d{1,6})(?:\s+[-=]\s+|[.)]\s+|\s*[:,;=]+\s*|\s+)(\S.*)", re.ASCII)
_LINE_WITH_NUMBER = re.compile(r"(.*\S)(?:\s*[,;:=\t]\s*|\s+)(\d{1,6})", re.ASCII)
# Keys under which tools save the names: of YOLO, timm, Transformers, torchvision and the features of Hugging Face.
_NAMES = ("names", "classes", "class_names", "label_names", "id2label", "idx_to_class", "class_to_idx", "label2id")
_BEGINNINGS = ("[", "{")
# Of label maps of TensorFlow's Object Detection API, whose name is an identifier where there is a display_name.
_ITEM = re.compile(r"\bitem\s*\{([^{}]*)\}")
_FIELD = re.compile(r"\b(id|name|display_name)\s*:\s*(?:(\d+)|\"([^\"]*)\"|'([^']*)')")
_MARKUP = re.compile(r"</?\w[^<>]*>|---")
_SETTING = re.compile(r"[A-Za-z_]\w*\s*=\s*\S.*")
_SHOWN = 60  # characters of a text in a message


def read_small(path: str, key: str) -> str:
    """Returns the text of a small file, local or ``s3://``; raises ConfigError if there is none of that name."""
    location = locate(path)
    if not location.startswith("s3://") and Path(location).is_dir():
        raise ConfigError(f"{key} {path} is a folder, not a file")
    try:
        data = store.read(location if location.startswith("s3://") else f"file://{Path(location).resolve()}")
        return data.decode("utf-8-sig")
    except NotFoundError as error:
        raise ConfigError(f"{key} {path} does not exist") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key} {path} is not UTF-8 text: {error}") from error


def read_class_names(path: str, key: str) -> list[str]:
    """Returns the names: one a line, or a list, ``{"0": "ant"}``, ``{"0": ["n0", "ant"]}`` or ``{"ant": 0}``.

    Lists and tables are JSON, YAML or Python, also under a usual key, as ``names``.

    Args:
        path: File, local or ``s3://``.
        key: Setting that names it, for messages.

    Raises:
        ConfigError: There is no such file, or it holds no names.
    """
    text, where = read_small(path, key).strip(), f"{key} {path}"
    content = _parse(text, path, where)
    content = _unwrap(content) if isinstance(content, dict) else content
    if isinstance(content, list) and content and all(isinstance(one, dict) for one in content):
        content = _by_number(content)
    names = _in_order(content, where) if isinstance(content, dict) else content
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConfigError(f"{where} must hold the names of the classes, one a line or as a JSON list")
    if unprintable := [name for name in names if not name.isprintable()]:
        raise ConfigError(f"{where} holds other bytes than names of classes, as {unprintable[0][:_SHOWN]!r}")
    if repeated := _list_repeated(names):  # two of ImageNet's classes are cranes
        log.warning("%s: %d names are of several classes, as %r", where, len(repeated), repeated[0])
    return list(names)


def _by_number(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the names of objects with a number and a name, as the categories of COCO, by number."""
    numbers, names = ("id", "index", "label", "class_id"), ("name", "class_name", "class")
    return {
        str(next((one[key] for key in numbers if key in one), None)): next(
            (one[key] for key in names if key in one), None
        )
        for one in objects
    }


def _list_repeated(names: Sequence[str]) -> list[str]:
    return [name for name, number in Counter(names).items() if number > 1]


def _parse(text: str, path: str, where: str) -> Any:
    """Returns the names as lists and mappings."""
    if path.lower().endswith((".yaml", ".yml")):
        import yaml

        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"{where} is no YAML: {' '.join(str(error).split())[:_SHOWN]}") from error
    if items := _ITEM.findall(text):
        return _read_items(items)
    if not text.startswith(_BEGINNINGS):
        return _read_lines(text, where)
    failed: Exception | None = None
    for read in (json.loads, _read_json_lines, ast.literal_eval):  # {0: 'tench', ...} of Python is usual, too
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            failed = failed or error
    raise ConfigError(f"{where} is no JSON list: {failed}") from failed


def _read_json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in filter(str.strip, text.splitlines())]


def _read_items(items: Sequence[str]) -> dict[str, str]:
    """Returns the names of a label map by number."""
    names: dict[str, str] = {}
    for item in items:
        fields = {key: "".join(values) for key, *values in _FIELD.findall(item)}
        names[fields.get("id", "")] = fields.get("display_name") or fields.get("name", "")
    return names


def _unwrap(content: Mapping[Any, Any]) -> Any:
    """Returns the names of a configuration that holds them under a usual key, or the mapping itself."""
    for path in (*((name,) for name in _NAMES), ("features", "label", "names")):
        value: Any = content
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, list | dict) and value:
            return value
    return content


def rank_labels(path: str | None, classes: Sequence[str], labels: Collection[str]) -> dict[str, int]:
    """Returns the number of the class that a label means: its name, or, of names from a file, its number too.

    Args:
        path: ``data.class_file``.
        classes: Names of the classes.
        labels: All labels; whole numbers are without leading zeros, and negative ones stand for none.

    Raises:
        ConfigError: Names are numbers of other classes, and the labels may be either, or a label is the name of two.
    """
    if path is not None and (repeated := [name for name in _list_repeated(classes) if name in set(labels)]):
        raise ConfigError(f"data.class_file {path}: the label {repeated[0]!r} is the name of several classes")
    by_name = {name: label for label, name in enumerate(classes)}
    by_number = {str(label): label for label in range(len(classes))}
    if path is None:
        return by_name
    as_labels = {str(int(name)): label for name, label in by_name.items() if name.isdecimal() and name.isascii()}
    by_name = as_labels | by_name
    labels = {label for label in labels if label in by_name or not label.startswith("-")}
    unequal = sorted(text for text in by_name.keys() & by_number.keys() if by_name[text] != by_number[text])
    if not unequal:
        return by_number | by_name
    are_names, are_numbers = by_name.keys() >= set(labels), by_number.keys() >= set(labels)
    if are_names == are_numbers:
        text = unequal[0]
        raise ConfigError(
            f"data.class_file {path}: its names are numbers, and so are the labels: {text} is the name of class "
            f"{by_name[text]}, and the number of the class {classes[by_number[text]]!r}; names with letters, as "
            f"class_{text}, show which is meant"
        )
    return by_name if are_names else by_number


def _read_lines(text: str, where: str) -> list[str]:
    """Returns the names of the lines, without the numbers from 0 that all of them may have, as ``0: ant``.

    Quotes, a header of numbered lines and comments (``# ``) at the beginning are no names.

    Raises:
        ConfigError: They are numbered in another way, so that a name may be that of another class, or a line is empty.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = list(itertools.dropwhile(lambda line: line.startswith("# "), lines))
    if lines and all(map(_SETTING.fullmatch, lines)):
        raise ConfigError(f"{where} holds settings, as {lines[0][:_SHOWN]!r}, and not the names of classes")
    if others := list(filter(_MARKUP.fullmatch, lines)):
        raise ConfigError(f"{where}: {others[0][:_SHOWN]!r} is no name of a class: write the names one a line")
    if "" in lines:
        raise ConfigError(
            f"{where}: line {lines.index('') + 1} is empty, and a class needs a name: remove it or name it"
        )
    if any(line.startswith('"') and line.endswith('"') for line in lines):
        lines = [",".join(cells) for cells in csv.reader(lines, skipinitialspace=True)]
    if len(lines) == 1 and lines[0].count(",") > 1:
        raise ConfigError(f"{where} holds a single line, {lines[0][:_SHOWN]!r}: write the names one a line")
    numbered = [match for line in lines if (match := _NUMBERED_LINE.fullmatch(line))]
    if len(numbered) >= 2 and len(numbered) >= len(lines) - 1:
        _require_from_zero([int(match[1]) for match in numbered], where)
        return [match[2] for match in numbered]
    return _without_numbers_behind(lines)


def _without_numbers_behind(lines: Sequence[str]) -> list[str]:
    """Returns names in the order of the numbers behind them, as of ``ant,0``; other names, as ``class 1``, as they are.

    The numbers are those of classes if they are all from 0 to the last, each once, and the names differ without them.
    """
    matches = [match for line in lines if (match := _LINE_WITH_NUMBER.fullmatch(line))]
    names = {int(match[2]): match[1] for match in matches}
    is_numbered = len(matches) >= max(2, len(lines) - 1) and sorted(names) == list(range(len(matches)))
    if not is_numbered or len(set(names.values())) < len(names):
        return list(lines)
    return [names[number] for number in range(len(names))]


def _require_from_zero(numbers: Sequence[int], where: str) -> None:
    """Raises ConfigError unless numbers count from 0, in order."""
    if list(numbers) != list(range(len(numbers))):
        shown = ", ".join(map(str, numbers[:3]))
        raise ConfigError(
            f"{where} must hold the names of the classes in the order of the labels, which count from 0: it numbers "
            f"them {shown} and so on; number them from 0 in order, or write them alone"
        )


def _in_order(names: Mapping[str, Any], where: str) -> list[Any]:
    """Returns the names of a JSON object by number; raises ConfigError if the numbers do not count from 0."""
    names = {str(name): value for name, value in names.items()}
    numbers = [str(value) for value in names.values() if not isinstance(value, bool)]
    if len(numbers) == len(names) and all(number.isdecimal() and number.isascii() for number in numbers):
        if repeated := [number for number, count in Counter(numbers).items() if count > 1]:
            raise ConfigError(f"{where} has several names for class {repeated[0]}: each class needs one")
        names = dict(zip(numbers, names, strict=True))
    if all(number.isdecimal() and number.isascii() for number in names):
        _require_from_zero(sorted(map(int, names)), where)
    ordered = [names.get(str(number)) for number in range(len(names))]
    return [name[-1] if isinstance(name, list) and name else name for name in ordered]
