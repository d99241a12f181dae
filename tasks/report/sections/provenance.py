"""Where each part comes from: command, commit, configuration, data, hardware, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.report.sections.values import Json, entries, lines, mapping, named, typed

DATA = ("train", "minival", "val", "classes", "shards")
HARDWARE = ("cpu", "cores", "memory_gb", "gpu")
SERVICES = ("prefect", "mlflow", "s3")
TEXTS = ("profile", "commit", "finished", "command", "config_sha256")
# Part -> verb that makes it and title of its section, in page order.
PARTS = {
    "architecture": ("architecture", "Architecture search"),
    "scaling": ("scaling", "Scaling study"),
    "latency": ("latency", "Latency"),
    "transfer": ("transfer", "Transfer"),
    "maps": ("explain", "Class activation maps"),
}


def facts(summary: Json, parts: Json, profile: str | None) -> Json:
    """Origin of the reproduction and of every part, present or not; the data and the services."""
    rows = [_origin(summary, "Reproduction and grid search", make("reproduce", profile))]
    for name, (verb, title) in PARTS.items():
        rows.append(_origin(mapping(parts, name), title, make(verb, profile)))
    return {
        "rows": rows,
        "data": [typed(e, DATA, ("name", "manifest_sha256", "manifest_uri")) for e in entries(summary, "data")],
        "services": named(mapping(summary, "services"), SERVICES),
    }


def make(verb: str, profile: str | None) -> str:
    """The command that makes a part."""
    return f"effnet {verb} profile={profile}" if profile else f"effnet {verb}"


def status(part: Json, verb: str, profile: str | None) -> Json:
    """Opening of a section: whether the part exists, what failed in it, and the command that makes it."""
    return {"there": bool(part), "missing": lines(part, "missing"), "make": make(verb, profile)}


def _origin(part: Json, title: str, command: str) -> Json:
    machine = mapping(part, "machine")
    digests = mapping(part, "data_sha256")
    if isinstance(part.get("data"), str):
        digests = {str(part["data"]): "digest not recorded", **digests}
    digests = {**digests, **{str(e.get("name")): e.get("manifest_sha256") for e in entries(part, "data")}}
    return typed(part, ("wall_s",), (*TEXTS, "started")) | {
        "title": title,
        "make": command,
        "there": bool(part),
        "hardware": typed(machine, (), HARDWARE),
        "versions": {key: str(value) for key, value in machine.items() if key not in HARDWARE},
        "data": {key: str(value) for key, value in digests.items() if value},
        "config": list(_flat(mapping(part, "config"))),
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The configuration as command-line overrides: ``recipe.epochs=8``."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={'null' if value is None else value}"
