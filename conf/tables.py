"""What is wrong with a table of settings, or a list of tables, as it was typed: ``scaling.points=[{network:b0}]``.

OmegaConf, which makes dataclasses of them, stops at the first mistake and says it in the words of its own code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from conf.fields import MISSING
from conf.text import did_you_mean

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "one text"}
_BOOLEANS = ("y", "yes", "n", "no", "true", "false", "on", "off", "0", "1")  # as OmegaConf does


def find_mistakes(key: str, value: Any, kind: Any) -> Iterator[str]:
    """Yields a line for each mistake.

    Args:
        key: Setting, as ``scaling.points``.
        value: Lists, dicts, texts, numbers and None, as Hydra's grammar reads them.
        kind: Type of the setting.
    """
    if get_origin(kind) is list:
        if not isinstance(value, list):
            yield f"{key} takes a list, is {value!r}"
            return
        for number, element in enumerate(value):
            yield from find_mistakes(f"{key}[{number}]", element, get_args(kind)[0])
            if isinstance(element, dict) and dataclasses.is_dataclass(get_args(kind)[0]):
                yield from _find_missing(f"{key}[{number}]", element, get_args(kind)[0])
    elif dataclasses.is_dataclass(kind):
        yield from _find_in_table(key, value, kind)
    elif not _fits(value, get_args(kind) or (kind,)):
        allowed = next((words for one, words in _WORDS.items() if one in (get_args(kind) or (kind,))), "another value")
        if isinstance(value, float) and not math.isfinite(value):
            allowed = "a finite number"
        yield f"{key} must be {allowed}, is {'null' if value is None else repr(value)}"


def _find_in_table(key: str, value: Any, kind: Any) -> Iterator[str]:
    hints = get_type_hints(kind)
    if not isinstance(value, dict):
        yield f"{key} takes a table, as {{{next(iter(hints))}: VALUE}}, is {value!r}"
        return
    for name, one in value.items():
        if name in hints:
            yield from find_mistakes(f"{key}.{name}", one, hints[name])
        else:
            hint = did_you_mean(str(name), hints) or f"it has {', '.join(hints)}"
            yield f"{key} has no setting {str(name)!r}; {hint}"


def _find_missing(key: str, value: dict[str, Any], kind: Any) -> Iterator[str]:
    fields = dataclasses.fields(kind)
    missing = [one.name for one in fields if one.default == MISSING and value.get(one.name, MISSING) == MISSING]
    if missing:
        yield f"{key} needs {' and '.join(missing)}, as {{{', '.join(f'{name}: VALUE' for name in missing)}}}"


def _fits(value: Any, kinds: tuple[Any, ...]) -> bool:
    """Whether OmegaConf takes a value of no list and no table for one of the types."""
    if value is None or isinstance(value, list | dict):
        return value is None and NoneType in kinds
    for kind in kinds:
        if kind in (int, float) and not isinstance(value, bool) and not (kind is int and isinstance(value, float)):
            try:
                number = kind(value)
            except ValueError:
                continue
            return math.isfinite(number)
        if kind is str or (kind is bool and str(value).lower() in _BOOLEANS):
            return True
    return False
