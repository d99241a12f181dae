"""The one table of the groups of settings that each verb reads; others that are typed have no effect, which is said."""

from __future__ import annotations

from collections.abc import Sequence

from infra.errors import ConfigError

_TRAINING = ("model", "data", "recipe", "nightly")  # nightly: limits of the gate by which a version becomes champion
READ_BY: dict[str, tuple[str, ...]] = {
    "reproduce": (*_TRAINING, "search", "transfer", "explain", "photographs", "variants"),
    "shard": ("data",),
    "search": (*_TRAINING, "search"),
    "architecture": (*_TRAINING, "architecture"),
    "scaling": (*_TRAINING, "scaling"),
    "train": _TRAINING,
    "evaluate": ("data", "model", "model_ref"),
    "transfer": (*_TRAINING, "transfer", "model_ref"),
    "explain": (*_TRAINING, "explain"),
    "latency": ("model", "latency"),
    "linear": ("data", "linear"),
    "photographs": ("photographs",),
    "nightly": ("nightly", "transfer"),
    "register": ("nightly",),
    "import": ("nightly", "published"),
    "gate": ("model", "data", "recipe", "variants", "gate"),
    "report": (),
    "study": (*_TRAINING, "scaling", "linear", "transfer", "architecture", "latency", "variants"),
}
# Groups that only some verbs read; all others, as launch and services, are those of every verb.
GROUPS = tuple(dict.fromkeys(group for groups in READ_BY.values() for group in groups))
_NETWORKS = ("model", "model.name")


def list_unread(verb: str, overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that a verb does not read."""
    return [word for word in overrides if _group_of(word) in GROUPS and _group_of(word) not in READ_BY[verb]]


def describe_unread(verb: str, overrides: Sequence[str]) -> list[str]:
    """Returns a line for each override that has no effect, with the verbs that read it."""
    lines = []
    for word in list_unread(verb, overrides):
        readers = [other for other, groups in READ_BY.items() if _group_of(word) in groups]
        if word.startswith("data.accept="):  # the other verbs of its group do not read it either (flows/shard.py)
            lines.append(f"{word} has no effect: a night reads transfer.data.accept")
            continue
        if _group_of(word) == "data" and "transfer" in READ_BY[verb]:
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
