"""Composes overrides into a checked dataclass, and converts it to and from YAML. The only file that uses Hydra.

Hydra, OmegaConf and YAML are imported by the functions that use them: they take most of the time of ``effnet --help``.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_type_hints

from conf import overrides, schema
from conf.overrides import GROUPS as GROUPS
from conf.overrides import INTERPOLATION, ROOT, stored_name
from conf.overrides import keys as keys
from conf.overrides import options as options
from conf.text import escaped, first_line

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from yaml import SafeDumper
    from yaml.nodes import ScalarNode

MAX_YAML_CHARACTERS = 2**20  # of a configuration that is read back; the largest written here has 9,000
MAX_YAML_DEPTH = 16  # those written here have 5
_CONVERSION = re.compile(r"Value (?P<value>.*) (of type .* converted to (?P<kind>Integer|Float)|is not a valid bool)")
_TYPES = {"Integer": "a whole number", "Float": "a number", None: "true or false"}
_BOOLEANS = ("y", "yes", "n", "no", "true", "false", "on", "off")
_QUOTED = frozenset(form for word in _BOOLEANS for form in (word, word.title(), word.upper()))  # as OmegaConf does
# Groups of Hydra for programs that it runs itself: an eighth of the time of a composition, and no part of the result.
_OF_PROGRAMS = ("output", "launcher", "sweeper", "help", "hydra_help", "hydra_logging", "job_logging", "env")
T = TypeVar("T")


class OverrideError(ValueError):
    """An override that is not valid; the message is one line and names the nearest valid word."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def compose(words: Sequence[str] = ()) -> schema.Config:
    """Composes the configuration of one command.

    Args:
        words: Overrides ``KEY=VALUE``, e.g. ``["model=b3", "recipe.epochs=2"]``; the value of a setting stands as it is
            after the first ``=``.

    Raises:
        OverrideError: Unknown keys, options or values, and settings with several values, all of them; nothing has been
            changed.
    """
    words, spaced = overrides.join_spaced(words)
    mistakes = {word: mistake for word in words if (mistake := overrides.find_mistake(word))}
    repeated = overrides.find_repeated(words)
    valid = tuple(word for word in words if word not in mistakes)
    composed = _merge(valid) if valid or not mistakes else None
    if isinstance(composed, schema.Config) and not (mistakes or repeated or spaced):
        return copy.deepcopy(composed)
    refusals = _list_refusals(valid, composed, list(mistakes))
    raise OverrideError("; ".join([*spaced, *mistakes.values(), *repeated, *refusals]))


@lru_cache(maxsize=64)  # a flow composes the same overrides repeatedly
def _merge(words: tuple[str, ...]) -> schema.Config | str:
    """Returns the configuration of well-formed words, or the first refusal of their values."""
    from omegaconf import OmegaConf

    groups = tuple(word for word in words if _key(word) in GROUPS)
    settings = [word for word in words if _key(word) not in GROUPS]
    chosen = _merge(groups) if settings else None
    changed = {_key(word).partition(".")[0] for word in settings}
    names = [entry.name for entry in dataclasses.fields(schema.Config)]
    if isinstance(chosen, schema.Config):  # only the sections that the settings change are copied and converted
        names = [name for name in names if name in changed]
    try:
        files = _merge_files(groups)
        unchanged = [files[name] for name in files if name not in names and OmegaConf.is_config(files[name])]
        node = copy.deepcopy(files, {id(section): section for section in unchanged}) if settings else files
        _change_settings(node, settings)
        plain = {name: _convert(OmegaConf.to_container, node[name]) for name in names}
        _refuse_interpolations(plain)
        if (with_homes := _with_homes(plain)) != plain:  # of tables, which are written in Hydra's grammar
            node = copy.deepcopy(node)
            node.merge_with(with_homes)
        values = {name: _convert(OmegaConf.to_object, node[name]) for name in names}
        return dataclasses.replace(chosen, **values) if isinstance(chosen, schema.Config) else schema.Config(**values)
    except OverrideError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - of a dozen kinds, and Hydra documents none of them
        return _one_line(error)


def _convert(convert: Callable[[Any], Any], value: Any) -> Any:
    from omegaconf import OmegaConf

    return convert(value) if OmegaConf.is_config(value) else value


@lru_cache(maxsize=64)  # Hydra takes a fifth of a second, and most compositions differ in their settings alone
def _merge_files(groups: tuple[str, ...]) -> DictConfig:
    """The files that the words of groups choose, merged; callers must not modify it."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    _store_schema()
    GlobalHydra.instance().clear()  # a flow may compose inside a process that composed before
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT.resolve())):
        without = [f"~hydra/{group}" for group in _OF_PROGRAMS]
        return hydra_compose(config_name="config", overrides=[*groups, *without])


def _change_settings(node: DictConfig, words: Sequence[str]) -> None:
    """Sets the values of the command line, which Hydra too would set after it has merged all files."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    for override in OverridesParser.create().parse_overrides([overrides.in_hydra_words(word) for word in words]):
        if override.is_sweep_override():
            raise OverrideError(f"{override.key_or_group} has several values, is {override.input_line!r}: give one")
        if wrong := "; ".join(overrides.find_mistakes_in_table(override.key_or_group, override.value())):
            raise OverrideError(wrong)
        OmegaConf.update(node, override.key_or_group, override.value(), merge=True)


def _with_homes(plain: Any) -> Any:
    """Settings with the user's home in place of ``~`` at the beginning of a text, at any depth."""
    if isinstance(plain, dict):
        return {key: _with_homes(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_with_homes(value) for value in plain]
    return overrides.expand_home(plain) if isinstance(plain, str) else plain


def _list_refusals(words: tuple[str, ...], composed: schema.Config | str | None, removed: Sequence[str]) -> list[str]:
    """Lists the refusals of values, each of which is met only without the words of those before it.

    A refusal that names a setting whose word was removed may follow from that, and is not listed.
    """
    removed_keys, refusals = [_key(word) for word in removed], []
    while isinstance(composed, str):
        word = _find_cause(words, composed)
        subject = re.split("[ =:]", composed, maxsplit=1)[0]
        if not any(_names(composed, key) for key in removed_keys if key != subject):
            named = word is None or _names(composed, _key(word)) or re.match(rf"{re.escape(_key(word))}[.[]", composed)
            refusals.append(composed if named else f"{word!r}: {composed}")
        if word is None:
            break
        removed_keys.append(_key(word))
        words = _without(words, word)
        composed = _merge(words) if words else None
    return refusals


def _find_cause(words: tuple[str, ...], refusal: str) -> str | None:
    """Returns the word without which the refusal is another or none; those that the refusal names are tried first."""
    for word in sorted(words, key=lambda word: not _names(refusal, _key(word))):
        rest = _without(words, word)
        if not rest or _merge(rest) != refusal:
            return word
    return None


def _without(words: tuple[str, ...], word: str) -> tuple[str, ...]:
    return tuple(other for other in words if _key(other) != _key(word))


def _key(word: str) -> str:
    return word.partition("=")[0]


def _names(message: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.]*\w)", message) is not None


@lru_cache(maxsize=1)  # once per process: OmegaConf takes 45 ms to read the dataclasses
def _store_schema() -> None:
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=schema.Config)


def to_yaml(value: Any) -> str:
    """A schema dataclass as YAML, the same bytes for the same settings; ``from_yaml`` reads it back.

    It is written as OmegaConf writes it, which takes ten times as long, and a command may digest a hundred jobs.
    """
    from yaml import dump

    return dump(to_request(value), Dumper=_dumper(), default_flow_style=False, allow_unicode=True, sort_keys=False)


@lru_cache(maxsize=1)
def _dumper() -> type[SafeDumper]:
    from yaml import SafeDumper

    class Dumper(SafeDumper):
        """Quotes text that OmegaConf would read as something else."""

    def represent(dumper: SafeDumper, text: str) -> ScalarNode:
        style = "'" if text in _QUOTED or _is_number(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return Dumper


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def to_request(value: Any) -> dict[str, Any]:
    """A schema dataclass as plain nested dicts, without the LATER settings that have their default.

    A job therefore keeps its key, and a registered model its description, when a setting is added to the schema.
    """
    plain = cast(dict[str, Any], _to_plain(value, type(value)))
    return _without_later(_in_stored_words(plain, type(value)), value)


def _to_plain(value: Any, kind: Any) -> Any:
    """Dataclasses as dicts, and a whole number as a float where the setting is one, as it is when it is read back."""
    if dataclasses.is_dataclass(value):
        hints = _type_hints(cast(type, type(value)))
        names = [entry.name for entry in dataclasses.fields(value)]
        return {name: _to_plain(getattr(value, name), hints[name]) for name in names}
    if isinstance(value, list):
        return [_to_plain(element, *get_args(kind)) for element in value]
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_whole and float in (kind, *get_args(kind)) else value


@lru_cache(maxsize=64)  # of a class once per process: they are evaluated from text
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _without_later(plain: dict[str, Any], value: Any) -> dict[str, Any]:
    kept = {}
    for entry in dataclasses.fields(value):
        held, stored = getattr(value, entry.name), stored_name(entry)
        if not (entry.metadata.get("later") and held == _default_of(entry)):
            kept[stored] = _without_later(plain[stored], held) if dataclasses.is_dataclass(held) else plain[stored]
    return kept


def _default_of(entry: dataclasses.Field[Any]) -> Any:
    return entry.default_factory() if callable(entry.default_factory) else entry.default


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
        merged = OmegaConf.merge(_structure(cast(type, kind)), _in_present_words(stored, kind))
        _refuse_interpolations(OmegaConf.to_container(merged, resolve=False))
        return cast(T, OmegaConf.to_object(merged))
    except OverrideError:
        raise
    except Exception as error:  # of a dozen kinds, and the parser documents none of them
        raise OverrideError(_one_line(error)) from error


@lru_cache(maxsize=16)  # OmegaConf takes 7 ms to read the dataclasses of a job, and 59 ms those of a configuration
def _structure(kind: type) -> DictConfig:
    """A schema dataclass with its defaults; OmegaConf.merge copies it."""
    from omegaconf import OmegaConf

    return cast("DictConfig", OmegaConf.structured(kind))


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
    stored, hints = {}, _type_hints(kind)
    for entry in dataclasses.fields(kind):
        value = plain[entry.name]
        if not entry.metadata.get("digested", True) and value == _default_of(entry):
            continue
        value = _in_stored_words(value, hints[entry.name]) if isinstance(value, dict) else value
        words = entry.metadata.get("stored_values")
        stored[stored_name(entry)] = words.get(value, value) if words else value
    return stored


def _in_present_words(stored: Any, kind: Any) -> Any:
    """Renames what was stored to the words of the schema, unknown keys included, which the schema then refuses."""
    if not (isinstance(stored, dict) and dataclasses.is_dataclass(kind)):
        return stored
    present, hints = {}, _type_hints(cast(type, kind))
    entries = {stored_name(entry): entry for entry in dataclasses.fields(kind)}
    for key, value in stored.items():
        name, words = key, {}
        if entry := entries.get(key):
            name, words = entry.name, {old: new for new, old in entry.metadata.get("stored_values", {}).items()}
        present[name] = words.get(value, value) if isinstance(value, str) else _in_present_words(value, hints.get(name))
    return present


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys, as ``recipe.epochs``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def read_setting(config: schema.Config, key: str) -> Any:
    """The value of a dotted key, ``read_setting(config, "published.path")``."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _one_line(error: Exception) -> str:
    """The line of a Hydra or OmegaConf message that names the value and the key."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    says, key = first_line(cause), getattr(cause, "full_key", None)
    if word := getattr(error, "override", None):  # Hydra's grammar, in which lists of tables are written
        return overrides.describe_unreadable(word)
    if converted := _CONVERSION.match(says):
        return f"{key} must be {_TYPES[converted['kind']]}, is {converted['value']}"
    if problem := getattr(cause, "problem", None):  # the grammar of YAML
        mark = getattr(cause, "problem_mark", None)
        return f"{says}: {problem}" + (f" (line {mark.line + 1})" if mark else "")
    if "is not a ListConfig" in says:
        return f"{key} takes a list: {key}=[...]"
    return f"{key}: {says}" if key else says
