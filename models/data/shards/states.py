"""What the files of a set that grows looked like when it was sharded, so that a plan knows its shards without them.

``STORAGE/data/NAME/states/SETTINGS-STATE.json`` names the manifest that was made under these settings, of files in this
place with these names, sizes and times. It serves estimates alone: sharding itself needs the content of every image, on
which its split depends (``contents.py``).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from conf import schema
from conf.overrides import expand_home
from infra import store
from infra.errors import DataError, NotFoundError, PermanentError
from infra.store.json_objects import read_object
from models.data.sources import catalog, index
from models.data.sources.files.container import locate, locate_uri

_NOT_OF_SHARDS = ("augment", "shards_per_task", "metric", "leave_out")  # settings on which the shards do not depend
_MANIFEST = re.compile(r"[0-9a-f]+/manifest(-\d{4})?\.json")


def describe(data: schema.Data) -> str:
    """Returns a digest of names, sizes and times of the files of a set that grows; reads none of them.

    Returns:
        Empty for any other set, for files of the web, which have no times, and for those that cannot be listed.
    """
    if data.path is None or not catalog.find(data.source).grows or "://" in _without_s3(data):
        return ""
    whole = hashlib.sha256()
    with suppress(OSError, PermanentError):  # the source, when it is opened, says what is wrong
        if data.source == "webdataset":
            return index.digest_tars(data)
        for entry in _list_files(locate(data.path)):
            whole.update(json.dumps(entry).encode())
        return whole.hexdigest()[:16]
    return ""


def _without_s3(data: schema.Data) -> str:
    """The places of the files without the addresses that can be listed."""
    return f"{data.path} {data.val_path}".replace("s3://", "").replace("file://", "")


def _list_files(root: str) -> Iterator[tuple[str, int, float]]:
    """Yields name, size and time of each file below a folder, or of one archive."""
    if root.startswith("s3://"):
        entries = store.list_entries(root) or [store.find_entry(root)]
        yield from ((entry.uri.removeprefix(root), entry.size, entry.modified) for entry in entries)
        return
    if not Path(root).is_dir():
        entry = store.find_entry(locate_uri(root))
        yield "", entry.size, entry.modified
        return
    yield from _walk(Path(root), "", set())


def _walk(folder: Path, below: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, int, float]]:
    """Yields the files below a folder, sorted; follows links, but enters no folder twice."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = f"{below}{entry.name}"
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{name}/", seen)
        elif entry.is_file():  # no link that leads nowhere
            file = entry.stat()
            yield os.fsencode(name).hex(), file.st_size, file.st_mtime


def remember(data: schema.Data, folder: str, state: str, manifest_uri: str) -> None:
    """Records that files of this state were sharded to a manifest; replaces what was recorded of other states.

    Args:
        data: Data settings.
        folder: ``STORAGE/data/NAME``.
        state: Return value of ``describe`` before the images were read; empty if unknown, and then nothing is recorded.
        manifest_uri: URI of the manifest.
    """
    if not state:
        return
    uri = _uri_of(data, folder, state)
    store.write_json(uri, {"manifest": manifest_uri.removeprefix(f"{folder}/")})
    for entry in _list_states(data, folder):
        if entry.uri != uri:
            store.delete(entry.uri)


def find(data: schema.Data, folder: str) -> str | None:
    """Returns the URI of the manifest that was made of the files as they are now; None if there is none."""
    state = describe(data)
    return _read(_uri_of(data, folder, state), folder) if state else None


def find_last(data: schema.Data, folder: str) -> str | None:
    """Returns the URI of the manifest that was made last of this place, whatever its files are now."""
    states = sorted(_list_states(data, folder), key=lambda entry: entry.modified)
    return _read(states[-1].uri, folder) if states else None


def _list_states(data: schema.Data, folder: str) -> list[store.Entry]:
    prefix = _uri_of(data, folder, "").removesuffix(".json")
    return [entry for entry in store.list_entries(store.join(folder, "states")) if entry.uri.startswith(prefix)]


def _uri_of(data: schema.Data, folder: str, state: str) -> str:
    settings = {key: value for key, value in asdict(data).items() if key not in _NOT_OF_SHARDS}
    for key in ("path", "val_path"):  # a relative path is another place in another folder
        if settings[key] is not None and "://" not in settings[key]:
            settings[key] = str(Path(expand_home(settings[key])).absolute())
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    return store.join(folder, "states", f"{digest}-{state}.json")


def _read(uri: str, folder: str) -> str | None:
    """The URI of the manifest that a state names, if it is still there."""
    try:
        name = read_object(uri).get("manifest")
    except (NotFoundError, DataError):  # another command has deleted it, or it is damaged
        return None
    if not isinstance(name, str) or not _MANIFEST.fullmatch(name) or not store.exists(store.join(folder, name)):
        return None
    return store.join(folder, name)
