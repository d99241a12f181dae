"""Versions of a data set that nothing points to: the objects of those that ``effnet prune`` may delete.

Kept are the first version and the newest accepted one, versions that a kept job was made for, and what was written
lately. Of the others the manifest and the table are deleted, and the shards that no kept version has. The index of
their images and the mark of a refused version stay: by these its images are withheld from later ones
(``refusals.py``).

Shards that no manifest has, because a deletion or the night that wrote them was interrupted, are deleted as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from infra.store import Entry
from infra.store.json_objects import read_object
from models.data.shards import acceptance

MANIFEST_NAME = re.compile(r"(?:manifest|added)(?:-(\d{4}))?(?:-since-\d{4})?\.json")
_PART = re.compile(r"samples-[0-9a-f]{16}\.npy|(?:index/)?train-[0-9a-f]{8}-\d{5}-of-\d{5}\.tar(?:\.json)?")


def find_unused(folder: str, entries: Sequence[Entry], referenced: Collection[str], limit: float) -> tuple[Entry, ...]:
    """Returns the objects of a data set that can be deleted.

    Args:
        folder: URI of the folder of all versions, ``STORAGE/data/NAME/DIGEST``.
        entries: Its objects.
        referenced: URIs of the manifests that kept jobs were made for, perhaps of a store that was moved since.
        limit: Unix seconds; what was written later is kept.

    Raises:
        DataError: A manifest is damaged.
    """
    by_name = {entry.uri.removeprefix(f"{folder}/"): entry for entry in entries}
    numbers = {name: int(match[1] or 1) for name in by_name if (match := MANIFEST_NAME.fullmatch(name))}
    orphans = [name for name, entry in by_name.items() if _PART.fullmatch(name) and entry.modified <= limit]
    if len(numbers) < 2 and not orphans:
        return ()
    marks = acceptance.load(folder, list(by_name))
    accepted = [
        number
        for name, number in numbers.items()
        if name.startswith("manifest") and not acceptance.is_marked(by_name[name].uri, number, marks)
    ]
    newest = max(accepted, default=1)
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
    of_unused = [part for name in unused for part in _name_objects(bodies[name])]
    parts = dict.fromkeys(part for part in [*of_unused, *orphans] if part not in needed)
    return tuple(by_name[name] for name in [*unused, *parts] if name in by_name)


def find_unfinished(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Returns the objects that can be deleted of a data set without a manifest: all but the marks of versions.

    By its mark a first version that was refused, with too many broken images, is known: settings may still name it.
    """
    return tuple(entry for entry in entries if not acceptance.NAME.fullmatch(entry.uri.rpartition("/")[2]))


def _name_objects(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the objects beside a manifest that belong to it: its table, its shards and their indices."""
    names = [f"samples-{manifest['table'][:16]}.npy", "samples.npy"]
    for shard in manifest["shards"]:
        names += [str(shard["name"]), f"index/{shard['name']}.json"]
    return names
