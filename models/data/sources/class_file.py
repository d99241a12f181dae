"""Files with the names of classes in the order of labels or logits, and other small texts that settings name."""

from __future__ import annotations

import ast
import codecs
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from conf.text import logger
from infra import store
from infra.errors import ConfigError, NotFoundError
from models.data.sources.class_lines import read_lines, read_numbers, require_from_zero
from models.data.sources.files.container import locate

log = logger()
# Keys under which tools save the names: of YOLO, timm, Transformers, torchvision, the features of Hugging Face, COCO.
_NAMES = (
    *("names", "classes", "class_names", "label_names", "id2label", "idx_to_class", "class_to_idx", "label2id"),
    "categories",
)
_DEEPEST = 3  # keys above one of these
_BEGINNINGS = ("[", "{", "(")
# Of a list in Python or TOML, as CLASSES = ('ant', 'bee').
_ASSIGNED = re.compile(r"^[A-Za-z_]\w*\s*(?::[^=\n]+)?=\s*[\[({]", re.MULTILINE)
# Of label maps of TensorFlow's Object Detection API, whose name is an identifier where there is a display_name.
_ITEM = re.compile(r"\bitem\s*\{([^{}]*)\}")
_FIELD = re.compile(r"\b(id|name|display_name)\s*:\s*(?:(\d+)|\"([^\"]*)\"|'([^']*)')")
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # which begins as UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"", "utf-8-sig"),
)
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the file"),
    (b"{\\rtf", "rich text of a word processor"),
    (b"PK\x03\x04", "a zip, or a file of an office program"),
    (b"\xd0\xcf\x11\xe0", "a file of an office program"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"\x80", "a pickle, which is not read"),
)
_SHOWN = 60  # characters of a text in a message


def read_small(path: str, key: str) -> str:
    """Returns the text of a small file, local or ``s3://``: UTF-8, or UTF-16 where its first bytes say so.

    Raises:
        ConfigError: There is none of that name, or it is no such text.
    """
    location = locate(path)
    if not location.startswith("s3://") and Path(location).is_dir():
        raise ConfigError(f"{key} {path} is a folder, not a file")
    try:
        data = store.read(location if location.startswith("s3://") else f"file://{Path(location).resolve()}")
    except NotFoundError as error:
        raise ConfigError(f"{key} {path} does not exist") from error
    return decode_small(data, f"{key} {path}")


def decode_small(data: bytes, where: str) -> str:
    """Returns the text of a small file; ``where`` names it in messages. Errors are those of ``read_small``."""
    if other := next((what for signature, what in _OTHERS if data.startswith(signature)), ""):
        raise ConfigError(f"{where} is {other}{'' if ';' in other else '; save the names as text, one a line'}")
    encoding = next(encoding for mark, encoding in _ENCODINGS if data.startswith(mark))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where} is not UTF-8 text: {error}; save it as UTF-8, e.g. with iconv -f latin1 -t utf8"
        ) from error
    if 3 * text.count("\0") > len(text):
        raise ConfigError(f"{where} looks like UTF-16 without its mark: save it as UTF-8, e.g. with iconv")
    return text


def read_class_names(path: str, key: str) -> list[str]:
    """Returns the names: one a line, or a list, ``{"0": "ant"}``, ``{"0": ["n0", "ant"]}`` or ``{"ant": 0}``.

    Lists and tables are JSON, YAML or Python, also under a usual key, as ``names``.

    Args:
        path: File, local or ``s3://``.
        key: Setting that names it, for messages.

    Raises:
        ConfigError: There is no such file, or it holds no names.
    """
    return list(_read_names(read_small(path, key), path, f"{key} {path}"))


@lru_cache(maxsize=16)
def _read_names(text: str, path: str, where: str) -> tuple[str, ...]:
    """Returns the names as ``parse_names``, and logs what is odd about them, once in a command."""
    names = parse_names(text, path, where)
    if len(names) == 1:
        log.warning("%s has the name of a single class, %r", where, names[0][:_SHOWN])
    if repeated := _list_repeated(names):  # two of ImageNet's classes are cranes
        log.warning("%s: %d names are of several classes, as %r", where, len(repeated), repeated[0])
    return tuple(names)


def parse_names(text: str, path: str, where: str) -> list[str]:
    """Returns the names in a text as ``read_class_names``; its path has the suffix, and ``where`` names it."""
    content = _load(text, path, where)
    if isinstance(content, set):
        raise ConfigError(f"{where} is a set of Python, whose names have no order: write them as a list")
    names = _in_order(content, where) if isinstance(content, dict) else content
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        keys = (
            f"; its keys are {', '.join(map(str, content))[:_SHOWN]}" if isinstance(content, dict) and content else ""
        )
        raise ConfigError(f"{where} must hold the names of the classes, one a line or as a JSON list{keys}")
    if unprintable := [name for name in names if not name.isprintable()]:
        raise ConfigError(f"{where} holds other bytes than names of classes, as {unprintable[0][:_SHOWN]!r}")
    return list(names)


def parse_numbered(text: str, path: str, where: str) -> tuple[dict[int, str], bool]:
    """Returns the names in a text by number, from any number on, and whether the text states the numbers.

    Arguments and errors are those of ``parse_names``.
    """
    if stated := read_numbers(text):
        return stated, True
    content = _load(text, path, where)
    if isinstance(content, dict):
        by_number = {
            str(key): value[-1] if isinstance(value, list) and value else value for key, value in content.items()
        }
        if all(map(_is_number, map(str, by_number.values()))):
            by_number = {str(value): key for key, value in by_number.items()}
        if by_number and all(map(_is_number, by_number)) and all(isinstance(one, str) for one in by_number.values()):
            return {int(key): name.strip() for key, name in by_number.items()}, True
    return dict(enumerate(parse_names(text, path, where))), False


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii()


def _load(text: str, path: str, where: str) -> Any:
    """Returns the names as a list, or by number, or what else the text holds."""
    content = _parse(text.strip(), path, where)
    content = _unwrap(content) if isinstance(content, dict) else content
    content = list(content) if isinstance(content, tuple) else content
    return _from_objects(content) if isinstance(content, list) and content else content


def _from_objects(objects: list[Any]) -> list[Any] | dict[str, Any]:
    """Returns the names of objects with a number and a name, as the categories of COCO, or of pairs, by number.

    Those without numbers are in their order, as the labels of CVAT.
    """
    if all(isinstance(one, list | tuple) and len(one) == 2 for one in objects):
        are_numbers = all(isinstance(one[0], int) for one in objects)
        return {str(one[0]): one[1] for one in objects} if are_numbers else [one[1] for one in objects]
    if not all(isinstance(one, dict) for one in objects):
        return objects
    keys, names = ("id", "index", "label", "class_id"), ("name", "class_name", "class", "category", "value", "label")
    numbers = [next((one[key] for key in keys if not isinstance(one.get(key, ""), str)), None) for one in objects]
    values = [next((one[key] for key in names if isinstance(one.get(key), str)), None) for one in objects]
    if all(number is None for number in numbers):
        return values
    return {str(number): value for number, value in zip(numbers, values, strict=True)}


def _list_repeated(names: Sequence[str]) -> list[str]:
    return [name for name, number in Counter(names).items() if number > 1]


def _parse(text: str, path: str, where: str) -> Any:
    """Returns the names as lists and mappings."""
    if path.lower().endswith((".yaml", ".yml")):
        import yaml

        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:  # the last of 2001-99-99
            raise ConfigError(f"{where} is no YAML: {' '.join(str(error).split())[:_SHOWN]}") from error
    if items := _ITEM.findall(text):
        return _read_items(items)
    if not text.startswith(_BEGINNINGS):
        assigned = _read_assigned(text) if _ASSIGNED.search(text) else {}
        return assigned or read_lines(text, where)
    failed: Exception | None = None
    for read in (json.loads, _read_json_lines, ast.literal_eval):  # {0: 'tench', ...} of Python is usual, too
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            failed = failed or error
    raise ConfigError(f"{where} is no JSON list: {failed}") from failed


def _read_json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in filter(str.strip, text.splitlines())]


def _read_assigned(text: str) -> dict[Any, Any]:
    """Returns the lists and mappings that Python code or TOML assigns to names, in lower case; nothing is run.

    A single one has the names of the classes whatever it is called, as ``LABELS_EN = [...]``.
    """
    try:
        body = ast.parse(text).body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    assigned: dict[Any, Any] = {}
    for statement in body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        try:
            value = ast.literal_eval(statement.value)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(value, list | tuple | dict) and value and isinstance(target, ast.Name):
            assigned[target.id.lower()] = value
    if len(assigned) != 1:
        return assigned
    (only,) = assigned.values()
    return only if isinstance(only, dict) else {_NAMES[0]: only}


def _read_items(items: Sequence[str]) -> dict[str, str]:
    """Returns the names of a label map by number."""
    names: dict[str, str] = {}
    for item in items:
        fields = {key: "".join(values) for key, *values in _FIELD.findall(item)}
        names[fields.get("id", "")] = fields.get("display_name") or fields.get("name", "")
    return names


def _unwrap(content: Mapping[Any, Any], deepest: int = _DEEPEST) -> Any:
    """Returns the names of a configuration that holds them under a usual key, or the mapping itself."""
    for name in _NAMES:
        if isinstance(value := content.get(name), list | tuple | dict) and value:
            return value
    inside = [value for value in content.values() if deepest and isinstance(value, dict)]
    named = [names for value in inside if (names := _unwrap(value, deepest - 1)) is not value]
    return named[0] if len(named) == 1 else content


def rank_labels(path: str | None, classes: Sequence[str], labels: Collection[str]) -> tuple[dict[str, int], str]:
    """Returns the number of the class that a label means: its name, or, of names from a file, its number too.

    The numbers count from 0, or from 1 where all labels do. Labels may also be the first words of the names, as the
    WordNet ids in ``n01 tench``.

    Returns:
        Classes by label, and a remark on labels of these two other forms; empty for usual ones.

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
        return by_name, ""
    if _count_from_one(labels, classes):
        last = len(classes)
        said = f"the labels count from 1 to {last}, so 1 is {classes[0]} and {last} is {classes[-1]} of {path}"
        return {str(label + 1): label for label in range(last)}, said
    if by_word := _label_first_words(labels, classes):
        return by_word, f"the labels are the first words of the names in {path}, as {min(labels)}"
    as_labels = {str(int(name)): label for name, label in by_name.items() if name.isdecimal() and name.isascii()}
    by_name = as_labels | by_name
    labels = {label for label in labels if label in by_name or not label.startswith("-")}
    unequal = sorted(text for text in by_name.keys() & by_number.keys() if by_name[text] != by_number[text])
    if not unequal:
        return by_number | by_name, ""
    are_names, are_numbers = by_name.keys() >= set(labels), by_number.keys() >= set(labels)
    if are_names == are_numbers:
        text = unequal[0]
        raise ConfigError(
            f"data.class_file {path}: its names are numbers, and so are the labels: {text} is the name of class "
            f"{by_name[text]}, and the number of the class {classes[by_number[text]]!r}; names with letters, as "
            f"class_{text}, show which is meant"
        )
    return (by_name if are_names else by_number), ""


def _count_from_one(labels: Collection[str], classes: Sequence[str]) -> bool:
    """Whether labels are numbers from 1 to the number of the classes, the last among them, and no names of these."""
    numbers = {label for label in labels if not label.startswith("-")}
    last = len(classes)
    return (
        str(last) in numbers and numbers <= {str(n) for n in range(1, last + 1)} and not any(map(_is_number, classes))
    )


def _label_first_words(labels: Collection[str], classes: Sequence[str]) -> dict[str, int]:
    """Returns the classes by the first words of their names; empty unless all labels are such words, and no names."""
    by_word = {re.split(r"[\s,:;]", name, maxsplit=1)[0]: label for label, name in enumerate(classes)}
    are_words = by_word.keys() >= set(labels) and not set(classes) & set(labels) and not all(map(_is_number, labels))
    return by_word if are_words and len(by_word) == len(classes) else {}


def _in_order(names: Mapping[str, Any], where: str) -> list[Any]:
    """Returns the names of a JSON object by number; raises ConfigError if the numbers do not count from 0."""
    names = {str(name): value for name, value in names.items()}
    numbers = [str(value) for value in names.values() if not isinstance(value, bool)]
    if len(numbers) == len(names) and all(number.isdecimal() and number.isascii() for number in numbers):
        if repeated := [number for number, count in Counter(numbers).items() if count > 1]:
            raise ConfigError(f"{where} has several names for class {repeated[0]}: each class needs one")
        names = dict(zip(numbers, names, strict=True))
    if all(number.isdecimal() and number.isascii() for number in names):
        require_from_zero(sorted(map(int, names)), where)
    ordered = [names.get(str(number)) for number in range(len(names))]
    return [name[-1] if isinstance(name, list) and name else name for name in ordered]
