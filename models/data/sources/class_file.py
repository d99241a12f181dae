"""Files with the names of classes in the order of labels or logits, and other small texts that settings name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra import store
from infra.errors import ConfigError, NotFoundError
from models.data.sources.container import locate

_NUMBERED_LINE = re.compile(r"(\d{1,6})[:,;\t ]+(\S.*)", re.ASCII)


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
    """Returns the names: one a line, or JSON, a list, ``{"0": "ant"}``, ``{"0": ["n0", "ant"]}`` or ``{"ant": 0}``.

    Args:
        path: File, local or ``s3://``.
        key: Setting that names it, for messages.

    Raises:
        ConfigError: There is no such file, or it holds no names.
    """
    text = read_small(path, key).strip()
    try:
        content = json.loads(text) if text.startswith(("[", "{")) else _read_lines(text, f"{key} {path}")
    except ValueError as error:
        raise ConfigError(f"{key} {path} is no JSON list: {error}") from error
    names = _in_order(content, f"{key} {path}") if isinstance(content, dict) else content
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{key} {path} must hold the names of the classes, one a line or as a JSON list")
    return list(names)


def rank_labels(path: str | None, classes: Sequence[str], labels: Collection[str]) -> dict[str, int]:
    """Returns the number of the class that a label means: its name, or, of names from a file, its number too.

    Args:
        path: ``data.class_file``.
        classes: Names of the classes.
        labels: All labels; whole numbers are without leading zeros, and negative ones stand for none.

    Raises:
        ConfigError: Names are numbers of other classes, and the labels may be either.
    """
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
    """Returns the names of the lines, without the numbers from 0 that all of them may begin with, as ``0: ant``.

    Raises:
        ConfigError: They are numbered in another way, so that a name may be that of another class.
    """
    lines = [line.strip() for line in text.splitlines()]
    numbered = [match for line in lines if (match := _NUMBERED_LINE.fullmatch(line))]
    if len(numbered) < 2 or len(numbered) < len(lines) - 1:
        return lines
    _require_from_zero([int(match[1]) for match in numbered], where)
    return [match[2] for match in numbered]


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
    if all(isinstance(value, int) for value in names.values()):
        names = {str(number): name for name, number in names.items()}
    if all(number.isdecimal() and number.isascii() for number in names):
        _require_from_zero(sorted(map(int, names)), where)
    ordered = [names.get(str(number)) for number in range(len(names))]
    return [name[-1] if isinstance(name, list) and name else name for name in ordered]
