"""Reads JSON in which any key may be missing: templates get numbers or None, and texts or None."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.report.numbers import standard_error

Json = dict[str, Any]

RUN = ("mlflow_run", "mlflow_url")


def clean(value: Any) -> Any:
    """Cleans JSON for display: NaN and infinity become missing, a password in an address becomes ``***``."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"://[^/?#\s]*@", "://***@", value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def items(parent: Json, key: str) -> list[Any]:
    """The list under a key, else an empty list."""
    value = parent.get(key)
    return value if isinstance(value, list) else []


def entries(parent: Json, key: str) -> list[Json]:
    """The objects of the list under a key."""
    return [entry for entry in items(parent, key) if isinstance(entry, dict)]


def mapping(parent: Json, key: str) -> Json:
    """The object under a key, else an empty object."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def lines(parent: Json, key: str) -> list[str]:
    """The texts of the list under a key."""
    return [str(line) for line in items(parent, key)]


def typed(entry: Json, numbers: Iterable[str], texts: Iterable[str]) -> Json:
    """Returns exactly the named keys: numbers or None, texts or None."""
    values: Json = {}
    for key in numbers:
        value = entry.get(key)
        values[key] = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return values | {key: None if entry.get(key) in (None, "") else str(entry[key]) for key in texts}


def named(entry: Json, expected: tuple[str, ...]) -> Json:
    """The expected keys first, missing or not, then whatever else was recorded."""
    return typed(entry, (), dict.fromkeys([*expected, *entry]))


def scored(entry: Json, numbers: tuple[str, ...], texts: tuple[str, ...]) -> Json:
    """As :func:`typed` for a network with ``top1``, ``top5`` and ``n_val``, with their standard errors."""
    row = typed(entry, (*numbers, "top1", "top5", "n_val"), texts)
    return row | {f"se{k}": standard_error(row[f"top{k}"], row["n_val"]) for k in (1, 5)}


def is_percent(value: float | None) -> bool:
    """Whether it can be drawn as an accuracy."""
    return value is not None and 0 <= value <= 100


def best_first(rows: Iterable[Json], key: str) -> list[Json]:
    """Sorted by a number, the greatest first; those without it last, in their order."""
    return sorted(rows, key=lambda row: math.inf if row[key] is None else -row[key])
