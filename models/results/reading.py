"""Reads results back from JSON objects: as a whole, or as far as they can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from infra.errors import DataError
from infra.store.json_objects import NUMBER, check_object

T = TypeVar("T")
Problems = list[str] | None  # collects what cannot be read; None: the first problem is an error


def result_from(kind: type[T], facts: Mapping[str, Any], where: str) -> T:
    """Builds a result from a JSON object.

    Args:
        kind: One of the frozen dataclasses of this package; its fields may hold others.
        facts: The object.
        where: Source of the object, for the message.

    Raises:
        DataError: The object lacks a field, has an unknown one, or holds a value of another type.
    """
    result: T = _object(kind, facts, where, None)
    return result


def salvage(kind: type[T], value: Any, where: str) -> tuple[T | None, tuple[str, ...]]:
    """Builds a result from JSON that another version may have written, or that may be damaged.

    Unknown keys are ignored. A field that cannot be read takes its default, an entry of a list or of a mapping that
    cannot be read is excluded; each is a problem.

    Args:
        kind: As in ``result_from``.
        value: Any JSON value.
        where: Source of the value, for the problems.

    Returns:
        The result, or None where a field without a default cannot be read; and the problems, one line each.
    """
    problems: list[str] = []
    try:
        return _object(kind, value, where, problems), tuple(problems)
    except DataError as error:
        return None, (*problems, str(error))


def _object(kind: Any, value: Any, where: str, problems: Problems) -> Any:
    facts, hints = check_object(where, value), _hints(kind)
    if problems is None and (unknown := sorted(facts.keys() - hints.keys())):
        raise DataError(f"{where} holds the key {unknown[0]!r}, which {kind.__name__} does not define")
    values = {}
    for spec in sorted(fields(kind), key=lambda spec: spec.name):
        if spec.name not in facts and not _is_required(spec):
            continue
        try:
            values[spec.name] = _value(hints[spec.name], facts, spec.name, where, problems)
        except DataError as error:
            if problems is None or _is_required(spec):
                raise
            problems.append(str(error))
    return kind(**values)


@cache  # annotations are stored as text: evaluating them took four fifths of the time of reading a summary
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_required(spec: Field[Any]) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING


def _value(hint: Any, holder: dict[str, Any], key: str, where: str, problems: Problems) -> Any:
    """``holder[key]``, checked against a field's type."""
    if get_origin(hint) is UnionType:  # of a type and None
        if key in holder and holder[key] is None:
            return None
        [hint] = (member for member in get_args(hint) if member is not type(None))
    kind = get_origin(hint) or hint
    if kind is Any:
        return holder[key]
    json_kind = dict if is_dataclass(kind) else {float: NUMBER, tuple: (list, tuple)}.get(kind, kind)
    value = check_object(where, holder, **{key: json_kind})[key]
    if kind is tuple:
        numbered = {f"{key}[{number}]": entry for number, entry in enumerate(value)}
        return tuple(_entries(get_args(hint)[0], numbered, where, problems).values())
    if kind is dict:
        return _entries(get_args(hint)[1], value, f"{key} of {where}", problems)
    return _object(kind, value, f"{key} of {where}", problems) if is_dataclass(kind) else value


def _entries(hint: Any, entries: dict[str, Any], where: str, problems: Problems) -> dict[str, Any]:
    checked = {}
    for key in entries:
        try:
            checked[key] = _value(hint, entries, key, where, problems)
        except DataError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return checked
