"""Composes overrides into a checked dataclass, and converts it to and from YAML. The only file that uses Hydra.

Hydra, OmegaConf and YAML are imported by the functions that use them: they take most of the time of ``effnet --help``.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from conf import schema
from conf.text import did_you_mean, escaped, first_line

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
MAX_YAML_CHARACTERS = 2**20  # of a configuration that is read back; the largest written here has 9,000
MAX_YAML_DEPTH = 16  # those written here have 5
T = TypeVar("T")


class OverrideError(ValueError):
    """An override that is not valid; the message is one line and names the nearest valid word."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def compose(overrides: Sequence[str] = ()) -> schema.Config:
    """Composes the configuration of one command.

    Args:
        overrides: Hydra's ``key=value`` strings, e.g. ``["model=b3", "recipe.epochs=2"]``.

    Raises:
        OverrideError: Unknown key, option or value; nothing has been changed.
    """
    return copy.deepcopy(_composed(tuple(overrides)))


@lru_cache(maxsize=64)  # Hydra takes a quarter of a second, and a flow composes the same overrides repeatedly
def _composed(overrides: tuple[str, ...]) -> schema.Config:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    if mistakes := [mistake for override in overrides if (mistake := _mistake(override))]:
        raise OverrideError("; ".join(mistakes))
    _store_schema()
    GlobalHydra.instance().clear()  # a flow may compose inside a process that composed before
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT.resolve())):
            node = hydra_compose(config_name="config", overrides=list(overrides))
        _refuse_interpolations(OmegaConf.to_container(node, resolve=False))
        return cast(schema.Config, OmegaConf.to_object(node))
    except OverrideError:
        raise
    except Exception as error:  # of a dozen kinds, and Hydra documents none of them
        raise OverrideError(_one_line(error)) from error


@lru_cache(maxsize=1)  # once per process: OmegaConf takes 45 ms to read the dataclasses
def _store_schema() -> None:
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=schema.Config)


def to_yaml(value: Any) -> str:
    """A schema dataclass as YAML; ``from_yaml`` reads it back."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(to_request(value)))


def to_request(value: Any) -> dict[str, Any]:
    """A schema dataclass as plain nested dicts, without the LATER settings that have their default.

    A job therefore keeps its key, and a registered model its description, when a setting is added to the schema.
    """
    from omegaconf import OmegaConf

    whole = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(value)))
    return _without_later(_in_stored_words(whole, type(value)), value)


def _without_later(plain: dict[str, Any], value: Any) -> dict[str, Any]:
    kept = {}
    for entry in dataclasses.fields(value):
        held, stored = getattr(value, entry.name), _stored_name(entry)
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        if not (entry.metadata.get("later") and held == default):
            kept[stored] = _without_later(plain[stored], held) if dataclasses.is_dataclass(held) else plain[stored]
    return kept


def from_yaml(kind: type[T], text: str | bytes) -> T:
    """Reads YAML back into a schema dataclass; unknown keys and wrong types are refused, and so is ``${``.

    The text was stored where others may write. Nothing in it is resolved, constructed or repeated: interpolations, tags
    and aliases are refused.

    Raises:
        OverrideError: The text does not fit ``kind``; no other error is raised, whatever the text contains.
    """
    from omegaconf import OmegaConf

    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        _check_yaml(decoded)
        stored = OmegaConf.to_container(OmegaConf.create(decoded), resolve=False)
        merged = OmegaConf.merge(OmegaConf.structured(kind), _in_present_words(stored, kind))
        _refuse_interpolations(OmegaConf.to_container(merged, resolve=False))
        return cast(T, OmegaConf.to_object(merged))
    except OverrideError:
        raise
    except Exception as error:  # of a dozen kinds, and the parser documents none of them
        raise OverrideError(_one_line(error)) from error


def _check_yaml(text: str) -> None:
    """Refuses all but a plain mapping, using the parser's events, whose number is linear in the text."""
    from yaml import SafeLoader, parse
    from yaml.events import (
        AliasEvent,
        CollectionEndEvent,
        CollectionStartEvent,
        DocumentStartEvent,
        MappingStartEvent,
        NodeEvent,
        ScalarEvent,
    )

    if len(text) > MAX_YAML_CHARACTERS:
        raise OverrideError(f"{len(text)} characters are no configuration, which has at most {MAX_YAML_CHARACTERS}")
    depth, is_root, is_mapping = 0, False, False
    for event in parse(text, Loader=SafeLoader):
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor is not None):
            raise OverrideError(f"anchors and aliases are refused, as {event.anchor!r}")
        if (tag := getattr(event, "tag", None)) is not None:
            raise OverrideError(f"tags are refused, as {tag!r}")
        if isinstance(event, ScalarEvent):
            _refuse_interpolations(event.value)
        is_mapping = isinstance(event, MappingStartEvent) if is_root else is_mapping
        is_root = isinstance(event, DocumentStartEvent)
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise OverrideError(f"nested more than {MAX_YAML_DEPTH} deep, which no configuration is")
    if not is_mapping:
        raise OverrideError("expected a mapping of settings, KEY: VALUE")


def _refuse_interpolations(value: Any) -> None:
    r"""Refuses ``${`` in an unresolved configuration, in which Hydra's own escape ``$\{`` is already undone."""
    if isinstance(value, str) and INTERPOLATION in value:
        raise OverrideError(f"values may not contain ${{...}}: {value[:80]!r}")
    if isinstance(value, dict):
        value = [*value, *value.values()]
    for part in value if isinstance(value, list) else ():
        _refuse_interpolations(part)


def to_dict(value: Any) -> dict[str, Any]:
    """A schema dataclass as plain nested dicts, for digests and for tracking, in the words of stored jobs.

    A NEWEST setting that has its default is omitted, so that stored work keeps its key.
    """
    return _in_stored_words(dataclasses.asdict(value), type(value))


# A renamed setting is stored and digested under its old name (metadata of the schema): jobs keep their keys.
def _in_stored_words(plain: dict[str, Any], kind: type) -> dict[str, Any]:
    """Renames settings and values to the words under which they are stored; ``_in_present_words`` is the inverse."""
    stored, hints = {}, get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        value = plain[entry.name]
        if not entry.metadata.get("digested", True) and value == entry.default:
            continue
        value = _in_stored_words(value, hints[entry.name]) if isinstance(value, dict) else value
        words = entry.metadata.get("stored_values")
        stored[_stored_name(entry)] = words.get(value, value) if words else value
    return stored


def _in_present_words(stored: Any, kind: Any) -> Any:
    """Renames what was stored to the words of the schema, unknown keys included, which the schema then refuses."""
    if not (isinstance(stored, dict) and dataclasses.is_dataclass(kind)):
        return stored
    present, hints = {}, get_type_hints(kind)
    entries = {_stored_name(entry): entry for entry in dataclasses.fields(kind)}
    for key, value in stored.items():
        name, words = key, {}
        if entry := entries.get(key):
            name, words = entry.name, {old: new for new, old in entry.metadata.get("stored_values", {}).items()}
        present[name] = words.get(value, value) if isinstance(value, str) else _in_present_words(value, hints.get(name))
    return present


def _stored_name(entry: dataclasses.Field[Any]) -> str:
    return str(entry.metadata.get("stored_as", entry.name))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys, as ``recipe.epochs``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def options(group: str) -> list[str]:
    """The options of a group, e.g. ``options("profile")``."""
    return sorted(path.stem for path in (ROOT / group.partition("@")[0]).glob("*.yaml"))


def read_setting(config: schema.Config, key: str) -> Any:
    """The value of a dotted key, ``read_setting(config, "published.path")``."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def keys() -> list[str]:
    """All dotted keys that an override can set."""
    return [key for key, _ in _settings(schema.Config)]


def _settings(kind: Any, prefix: str = "") -> Iterable[tuple[str, dataclasses.Field[Any]]]:
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        yield prefix + entry.name, entry
        if dataclasses.is_dataclass(hints[entry.name]):
            yield from _settings(hints[entry.name], f"{prefix}{entry.name}.")


def _mistake(override: str) -> str | None:
    """What is wrong with an override, with the nearest alternative, which Hydra's own messages do not name."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override!r} is not KEY=VALUE, as in recipe.epochs=2"
    if INTERPOLATION in value:
        return f"{override!r}: values may not contain ${{...}}"  # would read the environment
    if renamed := _renamed(key, value):
        return renamed
    if key in GROUPS:
        return None if value in (choices := options(key)) else f"no {key} named {value!r}; {_nearest(value, choices)}"
    if key not in (known := keys()):
        return f"no setting named {key!r}; {_nearest(key, [*known, *GROUPS])}"
    if value[:1] in ("[", "{") and any(
        value.count(opening) != value.count(closing) for opening, closing in ("[]", "{}")
    ):
        return f"{override!r}: a bracket is missing; a list is {key}=[A,B]"
    return None


def _renamed(key: str, value: str) -> str | None:
    """The new word for an old one."""
    for name, entry in _settings(schema.Config):
        if key != name and key == name.removesuffix(entry.name) + _stored_name(entry):
            return f"{key} was renamed to {name}"
        for new, old in entry.metadata.get("stored_values", {}).items():
            if (key, value) == (name, old):
                return f"{key}={old} was renamed to {key}={new}"
    return None


def _nearest(word: str, choices: Sequence[str]) -> str:
    more = f"choices: {', '.join(choices)}" if len(choices) <= 12 else "`effnet --help` names the usual ones"
    return f"{did_you_mean(word, choices)} {more}".strip()


def _one_line(error: Exception) -> str:
    """The line of a Hydra or OmegaConf message that names the value and the key."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    says, key = first_line(cause), getattr(cause, "full_key", None)
    if word := getattr(error, "override", None):  # Hydra's override grammar
        return f"{word!r}: {says}; a value with = : , {{ }} [ ] stands in quotes, as data.path=\"'a=b'\""
    if problem := getattr(cause, "problem", None):  # the grammar of YAML
        mark = getattr(cause, "problem_mark", None)
        return f"{says}: {problem}" + (f" (line {mark.line + 1})" if mark else "")
    if "is not a ListConfig" in says:
        return f"{key} takes a list: {key}=[...]"
    return f"{key}: {says}" if key else says
