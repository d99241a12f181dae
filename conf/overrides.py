"""Reads the words ``KEY=VALUE`` of a command: what is wrong with them, and how Hydra's grammar writes them.

A value is taken as it was typed, whatever characters it has; only lists of tables, and whole tables, are written in
Hydra's grammar.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from conf import schema, tables
from conf.fields import is_reference
from conf.text import did_you_mean

ROOT = Path(__file__).parent
GROUPS = (
    "profile",
    "model",
    "data",
    "recipe",
    "scaling",
    "transfer",
    "data@transfer.data",
    "recipe@transfer.recipe",
    "recipe@search.recipe",
    "recipe@explain.recipe",
    "recipe@architecture.recipe",
)
INTERPOLATION = "${"  # OmegaConf's only access to the environment and to other settings
NO_SETTING = "no setting named"  # how a mistake in a key begins
_NONE = ("none", "nil", "null")  # in any case but null itself
_MISSING = "???"  # what OmegaConf reads as a value that is still to be given
_ELEMENT = re.compile(r"""\s*('[^']*'|"[^"]*"|[^,]*?)\s*(,|$)""")  # a comma within quotes separates nothing
_INFINITE = ("nan", "inf", "infinity")
_FEW = 4  # settings that a message names
# Names of other tools, such as timm's training script, to which settings of other meanings are more similar.
_FOREIGN = {
    **dict.fromkeys(("batch", "batch_size", "batchsize", "bs"), "recipe.global_batch"),
    **dict.fromkeys(("lr", "learning_rate"), "recipe.lr_per_256"),
    **dict.fromkeys(("workers", "num_workers"), "runtime.loader_threads"),
    **dict.fromkeys(("gpus", "num_gpus", "devices"), "launch.nproc_per_node"),
    **dict.fromkeys(("output", "output_dir", "out_dir"), "run_dir"),
    "dataset": "data",
    "amp": "recipe.precision",
}


def options(group: str) -> list[str]:
    """The options of a group, e.g. ``options("profile")``."""
    return sorted(path.stem for path in (ROOT / group.partition("@")[0]).glob("*.yaml"))


def keys() -> list[str]:
    """All dotted keys that an override can set."""
    return [key for key, _, _ in _settings()]


def leaves() -> list[str]:
    """Those of them that have a value, not settings inside."""
    return [key for key, _, kind in _settings() if not _is_table(kind)]


def choices(key: str) -> list[str]:
    """The values of a setting that is true or false; empty for any other."""
    return ["true", "false"] if _types().get(key) is bool else []


def stored_name(entry: dataclasses.Field[Any]) -> str:
    """The name under which a setting is stored, which is its first one if it was renamed."""
    return str(entry.metadata.get("stored_as", entry.name))


@lru_cache(maxsize=1)
def _settings() -> tuple[tuple[str, dataclasses.Field[Any], Any], ...]:
    return tuple(_settings_of(schema.Config, ""))


def _settings_of(kind: Any, prefix: str) -> Iterable[tuple[str, dataclasses.Field[Any], Any]]:
    """Key, field and type of each setting."""
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        yield prefix + entry.name, entry, hints[entry.name]
        if dataclasses.is_dataclass(hints[entry.name]):
            yield from _settings_of(hints[entry.name], f"{prefix}{entry.name}.")


@lru_cache(maxsize=1)
def _types() -> dict[str, Any]:
    return {key: kind for key, _, kind in _settings()}


def expand_home(value: str) -> str:
    """``~/images`` and ``file://~/store`` with the user's home: a shell does not expand ``~`` after ``=``."""
    scheme = "file://" if value.startswith("file://~") else ""
    rest = value.removeprefix(scheme)
    return scheme + os.path.expanduser(rest) if rest.startswith("~") else value  # noqa: PTH111 - keeps `//` and `.`


def change_value(word: str, change: Callable[[str], str]) -> str:
    """An override with another value; of a list each element is changed.

    Args:
        word: ``KEY=VALUE``, without a mistake.
        change: Function from a value, or an element without its quotes, to the new one.
    """
    key, _, value = word.partition("=")
    kind = _types().get(key)
    if get_origin(kind) is not list or not (value.startswith("[") and value.endswith("]")):
        return f"{key}={change(value)}"
    if _is_table(get_args(kind)[0]):
        return word
    return f"{key}=[{','.join(_as_element(change(element)) for element in _elements(value))}]"


def _as_element(text: str) -> str:
    """An element of a list as it can be typed: in quotes where it would otherwise be read as several, or as another."""
    if "," not in text and text == text.strip() and text[:1] not in ("'", '"'):
        return text
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"


def in_hydra_words(word: str) -> str:
    """An override without a mistake in Hydra's grammar, in which it has the value that was typed."""
    key, _, value = word.partition("=")
    kind = _types().get(key)
    if key in GROUPS or kind is None or _is_table(kind):
        return word
    if get_origin(kind) is list:
        if _is_table(get_args(kind)[0]):
            return word
        return f"{key}=[{','.join(_quoted(expand_home(element)) for element in _elements(value))}]"
    if value == "null" and NoneType in get_args(kind):
        return word
    return f"{key}={_quoted(expand_home(value))}"


def _name_longer(key: str) -> str:
    """Asks for the settings that begin with a key, as ``recipe.lr_per_256`` and others for ``recipe.lr``."""
    longer = [known for known in keys() if known.startswith(f"{key}_")]
    return f"did you mean {' or '.join(map(repr, longer))}?" if "." in key and 0 < len(longer) <= _FEW else ""


def _name_foreign(key: str) -> str:
    """Asks for the setting that other tools call by another name: ``recipe.global_batch`` for ``batch_size``."""
    group, _, last = key.rpartition(".")
    known = _FOREIGN.get(last.lower())
    if known is None or (group and _name_longer(key) and last == "lr"):  # recipe.lr is the beginning of three
        return ""
    beside = f"{group}.{known.rpartition('.')[2]}"
    return f"did you mean {beside if beside in keys() else known!r}?"


def find_mistake(word: str) -> str | None:
    """What is wrong with an override, with the nearest alternative, which Hydra's own messages do not name."""
    key, equals, value = word.partition("=")
    if not equals:
        choices = [f"{group}={word}" for group in GROUPS if "@" not in group and word in options(group)]
        choices += [f"model_ref={word}"] if is_reference(word) else []
        choices += [f"data=folder data.path={word}"] if "/" in word and not is_reference(word) else []
        hint = f"; did you mean {' or '.join(choices)}?" if choices else ", as in recipe.epochs=2"
        return f"{word!r} is not KEY=VALUE{hint}"
    if INTERPOLATION in value:
        return f"{word!r}: values may not contain ${{...}}"  # would read the environment
    if not _is_utf8(value):
        return f"{word!r}: values must be UTF-8 text; a path of other bytes must be renamed, or reached by a link"
    if "\0" in value:
        return f"{word!r}: values may not contain a NUL character"  # no path, name or address has one
    if renamed := _renamed(key, value):
        return renamed
    if key in GROUPS:
        return None if value in (names := options(key)) else _unknown_option(key, value, names)
    if key not in _types():
        nearest = _name_groups(key) or _name_foreign(key) or _same_last_word(key) or _name_longer(key)
        nearest = nearest or did_you_mean(key, [*keys(), *GROUPS])
        return " ".join(filter(None, [f"{NO_SETTING} {key!r};", nearest, "`effnet config` lists them"]))
    return _mistake_in_value(key, value, _types()[key])


def _same_last_word(word: str) -> str:
    """The question ``did you mean 'data.seed' or 'recipe.seed'?`` for ``seed`` or ``model.seed``; empty without any."""
    ending = [key for key in keys() if key.rpartition(".")[2] == word.rpartition(".")[2]]
    depth = min((key.count(".") for key in ending), default=0)
    nearest = [repr(key) for key in sorted(ending) if key.count(".") == depth]
    return f"did you mean {' or '.join(nearest)}?" if 0 < len(nearest) <= _FEW else ""


def _name_groups(word: str) -> str:
    """The question ``did you mean 'data' or 'data@transfer.data'?`` for ``data@transfer``."""
    group, at, _ = word.partition("@")
    groups = [repr(one) for one in GROUPS if at and one.partition("@")[0] == group]
    return f"did you mean {' or '.join(groups)}?" if groups else ""


def _is_utf8(text: str) -> bool:
    """Whether a text can be encoded, which one of the command line that was other bytes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def find_repeated(words: Sequence[str]) -> list[str]:
    """Returns a line for each setting or group that is given several times with different values."""
    values: dict[str, list[str]] = {}
    for key, _, value in (word.partition("=") for word in words):
        values.setdefault(key, []).append(value)
    return [
        f"{key} is given {len(given)} times, as {' and '.join(map(repr, dict.fromkeys(given)))}: give it once"
        for key, given in values.items()
        if len(set(given)) > 1
    ]


def join_spaced(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the words that are no parts of a setting with spaces around ``=``, and a line for each such setting."""
    rest, lines = list(words), []
    for word in words:
        key = word.partition("=")[0]
        if word not in rest or (key not in _types() and key not in GROUPS):
            continue
        at = rest.index(word)
        following = [one for one in rest[at + 1 : at + 3] if one.startswith("=") or "=" not in one]
        if count := _count_parts(word, following):
            parts = rest[at : at + 1 + count]
            del rest[at : at + 1 + count]
            value = "".join(parts[1:]).removeprefix("=") if "=" not in word else "".join(parts).partition("=")[2]
            lines.append(f"{' '.join(parts)!r}: a setting is one word, as in {key}={value}")
    return rest, lines


def _count_parts(word: str, following: Sequence[str]) -> int:
    """Returns how many of the words that follow belong to a setting: ``=`` and ``/a``, ``=/a``, or ``/a``."""
    if "=" in word:
        return int(word.endswith("=") and word.count("=") == 1 and bool(following) and "=" not in following[0])
    if following[:1] == ["="]:
        return len(following)
    return int(
        bool(following) and (following[0].startswith("=") or (word in _types() and following[0] not in _types()))
    )


def replace(words: Iterable[str], changes: Iterable[str]) -> list[str]:
    """Returns overrides with ``changes`` in place of those of the same settings; of several, the last counts."""
    last: dict[str, str] = {}
    for word in (*words, *changes):
        key = word.partition("=")[0]
        last.pop(key, None)  # a later word may be part of a table before it
        last[key] = word
    return list(last.values())


def _mistake_in_value(key: str, value: str, kind: Any) -> str | None:
    elements = _elements(value) if get_origin(kind) is list and value.startswith("[") else [value]
    for text in elements if float in get_args(kind) or kind is float else ():
        if text.strip().lower().lstrip("+-") in _INFINITE:
            return f"{key} takes finite numbers, is {value!r}"
    home = value.removeprefix("file://")
    if key in ("run_dir", "storage") and home.startswith("~") and expand_home(home) == home:  # it would be made
        user = home[1:].partition("/")[0]
        return f"{key}={value}: this machine has no user {user!r} with a home folder"
    opened = value.startswith(("[", "{"))
    if get_origin(kind) is list:
        if opened and (value.count("[") != value.count("]") or value.count("{") != value.count("}")):
            return f"{key}={value!r}: a bracket is missing; a list is {key}=[A,B]"
        if not (value.startswith("[") and value.endswith("]")):
            return f"{key} takes a list, {key}=[A,B], is {value!r}"
    elif _is_table(kind):
        if not (value.startswith("{") and value.endswith("}")):
            group = next((f", or a file by {group}=NAME" for group in GROUPS if group.partition("@")[2] == key), "")
            first = dataclasses.fields(kind)[0].name
            return f"{key} is a group of settings: give one as {key}.{first}=VALUE{group}; is {value!r}"
    elif value.strip() in ("", _MISSING):
        none = "; null stands for none" if NoneType in get_args(kind) else ""
        return f"{key} needs a value, is {value!r}{none}"
    elif value.lower() in _NONE and value != "null" and NoneType in get_args(kind) and not key.endswith("path"):
        return f"{key}: null stands for none, is {value!r}"
    elif kind is str and value == "null":
        return f"{key} needs a value, and null stands for none"
    elif kind is bool and value.strip().isdecimal() and value.strip() not in ("0", "1"):  # OmegaConf takes any number
        return f"{key} must be true or false, is {value!r}"
    return None


def find_mistakes_in_table(key: str, value: Any) -> Iterable[str]:
    """Yields a line for each mistake in a table, or in a list of tables, as Hydra's grammar has read it."""
    kind = _types()[key]
    is_list = get_origin(kind) is list
    return tables.find_mistakes(key, value, kind) if _is_table(get_args(kind)[0] if is_list else kind) else ()


def describe_unreadable(word: str) -> str:
    """What is wrong with a table, or a list of tables, that is not in Hydra's grammar."""
    key, _, value = word.partition("=")
    form = "[{KEY: VALUE}]" if value.startswith("[") else "{KEY: VALUE}"
    return f"{word!r} cannot be read: give it as {key}={form}, with quotes around other characters"


def _renamed(key: str, value: str) -> str | None:
    """The new word for an old one."""
    for name, entry, _ in _settings():
        if key != name and key == name.removesuffix(entry.name) + stored_name(entry):
            return f"{key} was renamed to {name}"
        for new, old in entry.metadata.get("stored_values", {}).items():
            if (key, value) == (name, old):
                return f"{key}={old} was renamed to {key}={new}"
    return None


def _unknown_option(group: str, value: str, names: Sequence[str]) -> str:
    other = "; any other network: model.name=NAME" if group == "model" else ""
    if group == "data" and ("/" in value or "\\" in value):
        other = f"; images of your own: data=folder data.path={value}"
    nearest = "" if "/" in value or "\\" in value else did_you_mean(value, names)  # a path is similar to any name
    section = group.rpartition("@")[2]
    if value.startswith("{") and _is_table(_types()[section]):
        first = dataclasses.fields(_types()[section])[0].name
        other += f"; settings inside are given one by one, as {section}.{first}=VALUE"
    hints = [f"no {group} named {value!r};", nearest, f"choices: {', '.join(names)}{other}"]
    return " ".join(filter(None, hints))


def _is_table(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _elements(value: str) -> list[str]:
    """The elements of a list ``[A,B]``; those in quotes without them."""
    rest, elements = value[1:-1].strip(), []
    while rest:
        match = _ELEMENT.match(rest)
        assert match is not None  # noqa: S101 - the pattern takes any text
        elements.append(match[1][1:-1] if match[1][:1] in ("'", '"') and match[1][:1] == match[1][-1:] else match[1])
        rest = rest[match.end() :]
    return elements


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()
