"""Versions of a data set that nothing points to: the objects of those that ``effnet prune`` may delete.

Kept are the first version and the newest accepted one, versions that a kept job was made for, and what was written
lately. Of the others the manifest and the table are deleted, and the shards that no kept version has. The index of
their images and the mark of a refused version stay: by these its images are withheld from later ones
(``acceptance.py``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from infra.store import Entry
from infra.store.json_objects import read_object

_MANIFEST = re.compile(r"(?:manifest|added)(?:-(\d{4}))?\.json")
_UNACCEPTED = re.compile(r"unaccepted-(\d{4})\.json")


def find_unused(folder: str, entries: Sequence[Entry], referenced: Collection[str], limit: float) -> tuple[Entry, ...]:
    """Returns the objects of a data set that can be deleted, the manifests first.

    Args:
        folder: URI of the folder of all versions, ``STORAGE/data/NAME/DIGEST``.
        entries: Its objects.
        referenced: URIs of the manifests that kept jobs were made for, perhaps of a store that was moved since.
        limit: Unix seconds; what was written later is kept.

    Raises:
        DataError: A manifest is damaged.
    """
    if sum(bool(_MANIFEST.fullmatch(entry.uri.rpartition("/")[2])) for entry in entries) < 2:
        return ()
    by_name = {entry.uri.removeprefix(f"{folder}/"): entry for entry in entries}
    numbers = {name: int(match[1] or 1) for name in by_name if (match := _MANIFEST.fullmatch(name))}
    unaccepted = {int(match[1]) for name in by_name if (match := _UNACCEPTED.fullmatch(name))}
    newest = max((n for name, n in numbers.items() if name.startswith("manifest") and n not in unaccepted), default=1)
    named = {"/".join(uri.split("/")[-3:]) for uri in referenced}
    place = "/".join(folder.split("/")[-2:])
    kept_numbers = {1, newest}
    for name, number in numbers.items():
        if by_name[name].modified > limit or f"{place}/{name}" in named:
            kept_numbers.add(number)
    bodies = {name: read_object(by_name[name].uri, shards=list, table=str) for name in numbers}
    kept = {name for name, number in numbers.items() if number in kept_numbers}
    needed = {part for name in kept for part in _name_objects(bodies[name])}
    unused = [name for name in numbers if name not in kept]
    parts = dict.fromkeys(part for name in unused for part in _name_objects(bodies[name]) if part not in needed)
    return tuple(by_name[name] for name in [*unused, *parts] if name in by_name)


def _name_objects(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the objects beside a manifest that belong to it: its table, its shards and their indices."""
    names = [f"samples-{manifest['table'][:16]}.npy", "samples.npy"]
    for shard in manifest["shards"]:
        names += [str(shard["name"]), f"index/{shard['name']}.json"]
    return names
