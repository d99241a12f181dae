"""Settings that a verb does not read: they have no effect, which is said, or would make another result."""

from __future__ import annotations

from collections.abc import Sequence

from flows.cli.verbs import VERBS
from infra.errors import ConfigError

# Groups that only some verbs read; all others, as launch and services, are those of every verb.
GROUPS = tuple(dict.fromkeys(group for verb in VERBS.values() for group in verb.reads))
_NETWORKS = ("model", "model.name")


def list_unread(verb: str, overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that a verb does not read."""
    return [word for word in overrides if _group_of(word) in GROUPS and _group_of(word) not in VERBS[verb].reads]


def describe_unread(verb: str, overrides: Sequence[str]) -> list[str]:
    """Returns a line for each override that has no effect, with the verbs that read it."""
    lines = []
    for word in list_unread(verb, overrides):
        readers = [name for name, other in VERBS.items() if _group_of(word) in other.reads]
        if word.startswith("data.accept="):  # the other verbs of its group do not read it either (flows/shard.py)
            lines.append(f"{word} has no effect: a night reads transfer.data.accept")
            continue
        if _group_of(word) == "data" and "transfer" in VERBS[verb].reads:
            key, _, value = word.partition("=")
            instead = f"data@transfer.data={value}" if key == "data" else f"transfer.{word}"
            lines.append(f"{word} has no effect: the data of effnet {verb} are transfer.data; {instead} sets it")
            continue
        lines.append(f"{word} has no effect: effnet {verb} does not read it; effnet {', '.join(readers)} would")
    return lines


def refuse_unread_network(verb: str, overrides: Sequence[str]) -> None:
    """Refuses a network for a verb that takes its networks from another setting: the result would be that of others.

    Raises:
        ConfigError: There is one.
    """
    instead = {
        "nightly": "the network is that of the registered model nightly.model=NAME",
        "linear": "the networks are those of linear.networks=[...]",
        "photographs": "the networks are those of photographs.networks=[...]",
        "import": "the network is that of the file; published.network=NAME checks it",
    }
    for word in overrides:
        if verb in instead and word.partition("=")[0] in _NETWORKS:
            raise ConfigError(f"{word} would have no effect: {instead[verb]}")


def _group_of(word: str) -> str:
    """Returns the group of an override: transfer for ``data@transfer.data=pets`` and ``transfer.sets=[pets]``."""
    return word.partition("=")[0].rpartition("@")[2].partition(".")[0]
