"""Walks folders: name, size and stamp of every file below a local folder or an ``s3://`` folder.

The stamp of a file is a number that changes when the file is written: of its size and times, at an object store of
size, time and ETag. That of a local file includes the time at which its status changed last (ctime), which no program
sets back. A file that was written shortly before has none, because another write in the same tick of the clock would
leave size and times as they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from infra import store
from infra.store import files
from models.data.sources.files import tar
from models.data.sources.files.hidden import HIDDEN_FOLDERS, PREFIXES, is_of_system

NO_STAMP = 0
RECENT_S = 3.0  # FAT stores times to two seconds, object stores to one
_MAX_DEPTH = 8  # of official sets
_MAX_OWN_DEPTH = 64  # of a user's own; only a link to a folder above itself is deeper
ANNEX = "links of git-annex to images that are not here (git annex get fetches them)"
EMPTY_FOLDER, TOO_DEEP = "empty folders", f"folders more than {_MAX_OWN_DEPTH} levels deep"


class Entry(NamedTuple):
    """A file below a folder: its path there, its size in bytes, and its stamp."""

    name: str
    size: int
    stamp: int = NO_STAMP


def walk_local(root: Path, below: str = "", depth: int = 0) -> Iterator[Entry]:
    """Yields the files below a local folder, sorted, without hidden ones; follows links."""
    with files.errors(root / below):
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(PREFIXES):
            continue
        name = f"{below}{entry.name}"
        if entry.is_file():
            yield Entry(name, entry.stat().st_size)
        elif entry.is_dir() and depth < _MAX_DEPTH:
            yield from walk_local(root, f"{name}/", depth + 1)


def walk_own(root: Path, skipped: list[tuple[str, str]]) -> Iterator[Entry]:
    """Yields the files below a local folder of the user's own, sorted; adds what is no file to ``skipped``.

    Args:
        root: The folder.
        skipped: List that receives name and reason of the folders of systems, dead links, sockets and empty folders.
    """
    return _walk_own(root, skipped, time.time() - RECENT_S, "", ())


def _walk_own(
    root: Path, skipped: list[tuple[str, str]], recent: float, below: str, above: tuple[tuple[int, int], ...]
) -> Iterator[Entry]:
    """Walks one part of a folder.

    Args:
        root: As in ``walk_own``.
        skipped: As in ``walk_own``.
        recent: A file that was written after this time has no stamp.
        below: Part of the folder, which ends with ``/``.
        above: Device and inode of the folders that contain this part, to recognize a link to one of them.
    """
    with files.errors(root / below):
        status = (root / below).stat()
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    identity = (status.st_dev, status.st_ino)
    if identity in above or len(above) > _MAX_OWN_DEPTH:
        skipped.append((below, tar.DEAD_LINK if identity in above else TOO_DEEP))
        return
    if below and not entries:
        skipped.append((below, EMPTY_FOLDER))
    for entry in entries:
        name = f"{below}{entry.name}"
        try:
            if entry.is_file():
                status = entry.stat()
                yield Entry(name, status.st_size, _stamp_of_file(status, recent))
                continue
            is_folder = entry.is_dir()
            reason = "" if is_folder else _why_no_file(entry)
        except OSError as error:
            raise files.translate(error, root / name) from error
        if not is_folder:
            skipped.append((name, reason))
        elif is_of_system(entry.name):
            skipped.append((f"{name}/", HIDDEN_FOLDERS))
        else:
            yield from _walk_own(root, skipped, recent, f"{name}/", (*above, identity))


def _why_no_file(entry: os.DirEntry[str]) -> str:
    if not entry.is_symlink():
        return tar.NO_FILE
    return ANNEX if "annex/objects/" in str(Path(entry.path).readlink()) else tar.DEAD_LINK


def walk_remote(root: str) -> Iterator[Entry]:
    """Yields the objects below an ``s3://`` folder, as ``walk_local`` does for a local folder."""
    for entry in walk_own_remote(root):
        parts = entry.name.split("/")
        if len(parts) <= _MAX_DEPTH + 1 and not any(one.startswith(PREFIXES) for one in parts):
            yield entry


def walk_own_remote(root: str) -> Iterator[Entry]:
    """Yields all objects below an ``s3://`` folder but those that represent folders."""
    recent = time.time() - RECENT_S
    for listed in store.list_entries(root):
        name = listed.uri.removeprefix(f"{root}/")
        if all(name.split("/")):  # some tools create objects whose name ends in a slash
            is_recent = listed.modified > recent
            yield Entry(name, listed.size, NO_STAMP if is_recent else _stamp(listed.size, listed.modified, listed.etag))


def _stamp_of_file(status: os.stat_result, recent: float) -> int:
    if max(status.st_mtime, status.st_ctime) > recent:
        return NO_STAMP
    return _stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _stamp(*facts: object) -> int:
    return int.from_bytes(blake3(repr(facts).encode()).digest(8), "little") | 1
