"""Labels of the samples of WebDataset shards: the texts of members that may be one, and which of them is read.

A list of one label is that label. A vector with a single 1 among zeros is the class of that number if all labels of the
field are such vectors of one length; other lists are several labels.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TEXTS = ("cls", "txt", "json", "cls.npy")  # suffixes of what is read where no field is set
_KEYS = (
    *("label", "class", "cls", "target", "class_name", "label_name", "category", "category_name", "labels"),
    *("class_id", "label_id", "category_id"),
)  # of a .json, in this order
FIELDS = (
    "cls",
    "cls.npy",
    *(f"json.{key}" for key in _KEYS),
    "json",
    "txt",
)  # labels, in this order if equally many have them
NUMBER = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?")  # pandas writes whole numbers so beside missing ones
_VALUE, _BETWEEN = r"[-+.\de]+", r"(?:\s*[,;]\s*|\s+)"
_VECTOR = re.compile(rf"[\[(]\s*{_VALUE}(?:{_BETWEEN}{_VALUE})*\s*[\])]|{_VALUE}(?:{_BETWEEN}{_VALUE})+", re.IGNORECASE)
_MAX_LABEL = 256
# Values as Python or JSON writes them, by ``str(label)`` of what is no plain number or text: tensor(3), (3,), b'3'.
_WRITTEN = re.compile(
    r"(?:tensor|array|(?:np|numpy)\.\w+)\((?P<value>[^()]+?)(?:,\s*(?:dtype|device)=[^()]+)?\)"
    r"|\((?P<single>[^(),]+),\)|b?(?P<quote>['\"])(?P<text>.+)(?P=quote)",
    re.DOTALL,
)
_NUMPY = b"\x93NUMPY"
# Beginnings of values that are no printable label.
_ONE_HOT, _SEVERAL, UNREAD = "\0one of ", "\0several", "\0unread"


@dataclass(frozen=True)
class LabelReader:
    """Reads the label of a sample from the values of its fields.

    Attributes:
        field: The field.
        is_one_hot: Whether all labels in it are one-hot vectors of one length.
    """

    field: str
    is_one_hot: bool

    @classmethod
    def of(cls, field: str, samples: Iterable[Mapping[str, str]]) -> LabelReader:
        """The reader of a field of these samples."""
        kinds = {labels[field].partition(": ")[0] for labels in samples if field in labels} - {UNREAD}
        return cls(field, len(kinds) == 1 and min(kinds).startswith(_ONE_HOT))

    def has_several(self, labels: Mapping[str, str]) -> bool:
        """Whether a sample has several labels."""
        value = labels.get(self.field, "")
        return value.startswith(_SEVERAL) or (value.startswith(_ONE_HOT) and not self.is_one_hot)

    def has_other(self, labels: Mapping[str, str]) -> bool:
        """Whether a sample has the field, and something else than a label in it."""
        return labels.get(self.field) == UNREAD

    def is_without(self, labels: Mapping[str, str]) -> bool:
        """Whether a sample has nothing that may be a label in any field, or a negative number in this one."""
        value = labels.get(self.field, "-")
        return value.startswith("-") and not any(
            is_read(labels.get(one, UNREAD)) for one in FIELDS if one != self.field
        )

    def __call__(self, labels: Mapping[str, str]) -> str | None:
        """Returns the label of a sample; None if it has none, or several."""
        value = labels.get(self.field)
        if value is None or not value.startswith("\0"):
            return value
        return value.partition(": ")[2] if self.is_one_hot and value != UNREAD else None


def is_read(value: str) -> bool:
    """Whether a value of a field is a label, or several."""
    return value != UNREAD


def list_keys(content: Any) -> tuple[str, ...]:
    """Returns the keys of an object, and those of the objects in it as ``label.name``; none of other JSON."""
    if not isinstance(content, dict):
        return ()
    nested = {key: [f"{key}.{one}" for one in value] for key, value in content.items() if isinstance(value, dict)}
    return tuple(one for key in content for one in nested.get(key) or [str(key)])


def split_field(label_field: str) -> tuple[str, list[str]]:
    """Returns the suffix of the members and the keys in their JSON: ``info.json`` and ``[a]`` of ``info.json.a``."""
    parts = label_field.strip().lstrip(".").split(".")
    suffixes = [part.lower() for part in parts]  # as those of members; keys have their case
    end = suffixes.index("json") + 1 if "json" in suffixes else len(parts)
    return ".".join(suffixes[:end]), parts[end:]


def parse(suffix: str, data: bytes) -> Any:
    """Returns the text, JSON or array of a member; None if it is damaged."""
    try:
        if data.startswith(_NUMPY):  # whose objects would be pickles
            return np.load(io.BytesIO(data), allow_pickle=False).tolist()
        text = data.decode("utf-8-sig").strip()
        if suffix.rpartition(".")[2] == "json":
            return json.loads(text)
        while written := _WRITTEN.fullmatch(text):
            text = (written["value"] or written["single"] or written["text"]).strip()
        if text.startswith("{"):  # an object, whose text is no label
            return None
        return _parse_vector(text, only_marks=suffix == "txt") or text  # a text may begin with the numbers of a box
    except (ValueError, RecursionError):
        return None


def find_labels(suffix: str, content: Any, label_field: str | None) -> dict[str, str]:
    """Returns the values of a member that may be labels, by field; empty if it has none."""
    if not isinstance(content, dict):
        name = label_field or suffix
        return _plain({name: content}) or {name: UNREAD}
    if label_field is None:
        known = {str(key).lower(): value for key, value in reversed(content.items())}
        return _plain({f"json.{key}": known[key] for key in _KEYS if key in known})
    value: Any = content
    for key in split_field(label_field)[1]:
        value = value.get(key) if isinstance(value, dict) else None
    return _plain({label_field: value})


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the values that may be a label as texts: numbers, yes and no, short texts of one line, lists."""
    labels: dict[str, str] = {}
    for name, value in values.items():
        one = value
        while isinstance(one, list) and len(one) == 1:
            one = one[0]
        if isinstance(one, list):
            labels |= {name: _describe_vector(one)} if one else {}
            continue
        is_label = isinstance(one, str | int) or (isinstance(one, float) and one.is_integer())
        text = str(one).strip() if is_label and not (not isinstance(one, str) and abs(one) >= 10**18) else ""
        if 0 < len(text) <= _MAX_LABEL and text.isprintable():
            labels[name] = sys.intern(str(int(number[1])) if (number := NUMBER.fullmatch(text)) else text)
    return labels


def _parse_vector(text: str, *, only_marks: bool) -> list[float]:
    """Returns the numbers of a text with several, as ``0 1 0`` or ``[0, 1, 0]``; none of other texts."""
    if not _VECTOR.fullmatch(text):
        return []
    try:
        numbers = [float(part) for part in re.split(r"[,;\s\[\]()]+", text) if part]
    except ValueError:
        return []
    return [] if only_marks and not set(numbers) <= {0, 1} else numbers


def _describe_vector(values: Sequence[Any]) -> str:
    is_marked = all(isinstance(value, int | float) and value in (0, 1) for value in values)
    if not is_marked or sum(values) != 1:
        return _SEVERAL
    return sys.intern(f"{_ONE_HOT}{len(values)}: {list(values).index(1)}")
