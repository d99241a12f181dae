"""Data sets, and versions of one, that nothing points to: the objects of those that ``effnet prune`` may delete.

Of the data sets of a name, as a folder that grows makes when every night shards all of it, the newest are kept, those
that a kept job was made for or a version was trained on, and that of the present files (``states.py``).

Of the versions of a data set the first one and the newest accepted one are kept, those that a kept job was made for,
and what was written lately. Of the others the manifest and the table are deleted, and the shards that no kept version
has. The index of their images and the mark of a refused version stay: by these its images are withheld from later ones
(``refusals.py``).

Shards that no manifest has, because a deletion or the night that wrote them was interrupted, are deleted as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any

from conf.text import logger
from infra import store
from infra.errors import PermanentError, first_line
from infra.store import Entry
from infra.store.json_objects import read_object
from models.data.shards import acceptance
from models.data.shards.acceptance import REFUSED

log = logger()
MANIFEST_NAME = re.compile(r"(?:manifest|added)(?:-(\d{4}))?(?:-since-\d{4})?\.json")
_PART = re.compile(r"samples-[0-9a-f]{16}\.npy|(?:index/)?train-[0-9a-f]{8}-\d{5}-of-\d{5}\.tar(?:\.json)?")


def find_unused_sets(
    data: Mapping[str, Sequence[Entry]], referenced: Collection[str], trained_on: Set[str], limit: float, keep: int
) -> list[str]:
    """Returns the folders of whole data sets that can be deleted, but for the marks of refused first versions.

    Those with a refused later version stay, since its images are withheld by what is there.

    Args:
        data: Objects of all folders two levels below ``STORAGE/data``, by folder.
        referenced: URIs of the manifests that kept jobs were made for, perhaps of a store that was moved since.
        trained_on: Digests of the manifests that registered versions were trained on.
        limit: Unix seconds; what was written later is kept.
        keep: Number of data sets of each name that are kept, newest first.
    """
    named = {tuple(uri.split("/")[-3:-1]) for uri in referenced}
    by_name: dict[str, list[str]] = {}
    for folder, entries in data.items():
        if any(entry.uri == f"{folder}/manifest.json" for entry in entries):
            by_name.setdefault(folder.rpartition("/")[0], []).append(folder)
    unused = []
    for name, folders in by_name.items():
        by_age = sorted(folders, key=lambda folder: _newest(data[folder]), reverse=True)
        for folder in by_age[keep:]:
            if _newest(data[folder]) > limit or tuple(folder.split("/")[-2:]) in named:
                continue
            try:
                states = [read_object(entry.uri).get("manifest") for entry in data.get(f"{name}/states", ())]
                is_present = folder.rpartition("/")[2] in {str(one).partition("/")[0] for one in states}
                if not is_present and not _has_refused(folder, data[folder]):
                    unused += [folder] if trained_on.isdisjoint(_digest_manifests(data[folder])) else []
            except PermanentError as error:
                log.warning("the data set in %s is kept: %s", folder, first_line(error))
    return unused


def _newest(entries: Sequence[Entry]) -> float:
    return max(entry.modified for entry in entries)


def _has_refused(folder: str, entries: Sequence[Entry]) -> bool:
    """Whether a later version of a data set was refused."""
    marks = acceptance.load(folder, [entry.uri.removeprefix(f"{folder}/") for entry in entries])
    return any(mark.number > 1 and mark.state == REFUSED for mark in marks)


def _digest_manifests(entries: Sequence[Entry]) -> list[str]:
    uris = [entry.uri for entry in entries if MANIFEST_NAME.fullmatch(entry.uri.rpartition("/")[2])]
    return [hashlib.sha256(store.read(uri)).hexdigest() for uri in uris]


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


def drop_marks(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Returns the objects that can be deleted of a data set as a whole: all but the marks of versions.

    By its mark a first version that was refused, with too many broken images, is known: settings may still name it.
    """
    return tuple(entry for entry in entries if not acceptance.NAME.fullmatch(entry.uri.rpartition("/")[2]))


def _name_objects(manifest: Mapping[str, Any]) -> list[str]:
    """Names of the objects beside a manifest that belong to it: its table, its shards and their indices."""
    names = [f"samples-{manifest['table'][:16]}.npy", "samples.npy"]
    for shard in manifest["shards"]:
        names += [str(shard["name"]), f"index/{shard['name']}.json"]
    return names
