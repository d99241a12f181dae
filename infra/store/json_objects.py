"""Reads JSON objects from the store and checks the keys and types that the caller needs.

The store never exposes a partial write, but other programs, older versions and users write there too.
"""

from __future__ import annotations

from typing import Any

from infra import store
from infra.errors import DataError

NUMBER = (float, int)
Kind = type | tuple[type, ...]
_TITLES = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}


def read_object(uri: str, /, **needs: Kind) -> dict[str, Any]:
    """Reads the JSON object at ``uri``.

    Args:
        uri: Address of the object.
        needs: Types of the keys that it must have, as in ``read_object(uri, step=int)``; other keys are ignored.

    Raises:
        DataError: The value is not a JSON object, lacks a key, or has a value of another type.
    """
    return check_object(uri, store.read_json(uri), **needs)


def read_lines(uri: str, /, **needs: Kind) -> list[dict[str, Any]]:
    """Reads one JSON object per line; arguments and errors are those of ``read_object``."""
    lines = enumerate(store.read(uri).splitlines(), start=1)
    return [check_object(f"{uri}, line {number},", store.parse_json(line, uri), **needs) for number, line in lines]


def check_object(where: str, value: Any, /, **needs: Kind) -> dict[str, Any]:
    """Returns ``value`` if it is an object with these keys.

    Args:
        where: Origin of the value, for the message.
        value: Any parsed JSON value.
        needs: Types of the keys that it must have.

    Raises:
        DataError: As in ``read_object``.
    """
    if not isinstance(value, dict):
        raise DataError(f"{where} does not hold a JSON object but {_TITLES.get(type(value), 'a number')}")
    for key, kind in needs.items():
        if key not in value:
            raise DataError(f"{where} does not hold the key {key!r}")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        # A bool is an int in Python, but not a number in JSON.
        if not isinstance(value[key], kinds) or (isinstance(value[key], bool) and bool not in kinds):
            expected = _TITLES.get(kinds[0], "a number")
            held = "null" if value[key] is None else repr(str(value[key])[:40])
            raise DataError(f"{where} does not hold {expected} as {key!r} but {held}")
    return value
