"""Lists the files of a data set by name, in archives, in a folder, or in both; reads headers only.

An archive is a tar, a tar of tars (ImageNet's training images), or a compressed archive (``decompress.py``), on local
disk or in an object store. ``Files`` presents all of them as the tree that extraction would create.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conf.progress import Progress
from conf.text import escaped, logger
from infra import store
from infra.errors import ConfigError, DataError, NotFoundError
from infra.store import files
from models.data.sources.files import decompress, tar
from models.data.sources.files.container import Container, join_parts, locate
from models.data.sources.files.hidden import HIDDEN, HIDDEN_FOLDERS, why_hidden
from models.data.sources.files.image_format import HEAD_BYTES
from models.data.sources.files.reader import OWN_FILE, Reader, open_member
from models.data.sources.files.unread_formats import describe, find_format
from models.data.sources.files.walk import Entry, walk_local, walk_own, walk_own_remote, walk_remote

log = logger()
ARCHIVES = (".tar", *decompress.COMPRESSED)
_SCAN_THREADS = 8  # concurrent requests hide the latency of a cold disk or an object store
_OUTER_BYTES = 2**16  # the headers of a tar of tars are a hundred megabytes apart
# Archives and images of disks that are told by their suffixes; others are named by their first bytes.
_OTHER_ARCHIVES = (
    *(".iso", ".dmg", ".img", ".cab", ".arj", ".cpio", ".squashfs", ".deb", ".rpm", ".lrz", ".br", ".lzo", ".sit"),
    *(".ace", ".zpaq", ".wim", ".vhd", ".vmdk"),
)
_UNFINISHED = (".crdownload", ".part", ".partial", ".download", ".aria2", ".torrent", ".opdownload")
_SHOWN = 200  # characters of a path in a message
_PART = re.compile(r"\.(?:\d{3}|(?:part)?a[a-z]|part\d+)$", re.IGNORECASE)  # as 7-Zip, split and rar name them


@dataclass(frozen=True)
class Files:
    """N files below ``root``.

    Attributes:
        root: Folder or archive, a local path or an ``s3://`` uri.
        containers: Archives, relative to ``root``; the empty string if ``root`` is the archive.
        names: Paths with ``/``, relative to the archive or to ``root``.
        container: ``[N]``, index into ``containers``, or ``OWN_FILE`` for the file ``root/name``.
        offsets: ``[N]``, first byte of the file in its container.
        sizes: ``[N]``, number of bytes.
        stamps: ``[N]`` uint64, stamps of loose files (``walk.py``); may be empty if there are none.
        skipped: Name and reason of each entry that is not listed, where a user's own folder or archive was opened; the
            names of folders end with ``/``.
    """

    root: str
    containers: tuple[str, ...]
    names: list[str]
    container: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    stamps: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    skipped: tuple[tuple[str, str], ...] = ()

    def find(self, name: str) -> int | None:
        """Returns the row of the file whose path is ``name`` or ends with it, the nearest to the root."""
        ending = f"/{name}"
        rows = [row for row, path in enumerate(self.names) if path == name or path.endswith(ending)]
        return min(rows, key=lambda row: (self.names[row].count("/"), row), default=None)

    def folder(self, name: str) -> dict[str, int]:
        """Returns the rows of the files below the folder ``name`` nearest to the root, by their path in it.

        A folder that contains only a folder of its name, as in many published copies, is that folder.
        """
        infix, nearest = f"/{name}/", 10**6
        rows: dict[str, int] = {}
        for row, path in enumerate(self.names):
            at = f"/{path}".find(infix)
            if at < 0 or (depth := path.count("/", 0, at)) > nearest:
                continue
            if depth < nearest:
                nearest, rows = depth, {}
            rows.setdefault(path[at + len(infix) - 1 :], row)  # a file in an archive takes precedence over a loose one
        inner = f"{name.rpartition('/')[2]}/"
        if rows and all(path.startswith(inner) for path in rows):
            rows = {path.removeprefix(inner): row for path, row in rows.items()}
        return rows

    def read(self, row: int) -> bytes:
        """Returns the bytes of one file; raises DataError if they are missing."""
        return self.reader([row])(0)

    def reader(self, rows: Sequence[int] | NDArray[np.int64]) -> Reader:
        """Returns a reader that maps index i to the file in row ``rows[i]``."""
        index = np.asarray(rows, np.int64)
        container = self.container[index]
        has_loose = np.any(container == OWN_FILE)
        paths = [os.fsencode(self.names[row]) for row in index.tolist()] if has_loose else []
        stamps = self.stamps[index] if len(self.stamps) else self.stamps
        return Reader(
            self.root,
            self.containers,
            container,
            self.offsets[index],
            self.sizes[index],
            np.array(paths, np.bytes_),
            stamps,
        )


def open_files(path: str, names: Sequence[str]) -> Files:
    """Opens the available part of a data set: one archive, or a folder with archives, loose files, or both.

    Args:
        path: The setting ``data.path``.
        names: Official names of archives, of which the existing ones are opened, and of files beside them. A local
            folder, and a remote one without archives, is searched for other files too.

    Raises:
        ConfigError: No file of the data set exists.
        DataError: An archive is damaged or unsafe.
    """
    root = locate(path)
    archives = [name for name in names if name.endswith(ARCHIVES)]
    if root.lower().endswith(ARCHIVES) and (root.startswith("s3://") or Path(root).is_file()):
        return merge_files([archive(root, "")])
    if root.startswith("s3://"):
        parts = [archive(root, name) for name in archives if store.exists(join_parts(root, name))]
        if parts:  # a bucket with the archives may contain unrelated objects
            parts += [
                _loose(root, [Entry(name, size)])
                for name in names
                if name not in archives and (size := _size(join_parts(root, name))) >= 0
            ]
        else:
            parts = [walk_folder(root)]
    else:
        with files.errors(Path(root)):
            if not Path(root).is_dir():
                raise _no_data_error(root)
        present = [name for name in archives if (Path(root) / name).is_file()]
        entries = [entry for entry in walk_local(Path(root)) if entry.name not in archives]
        parts = [*(archive(root, name) for name in present), _loose(root, entries)]
    if not any(part.names for part in parts):
        raise ConfigError(
            f"data.path {root} contains nothing of the data set; looked for {', '.join(names)}; "
            "data=folder reads images of your own"
        )
    return merge_files(parts)


def merge_files(parts: Sequence[Files]) -> Files:
    """Concatenates parts that have the same root."""
    containers = tuple(name for part in parts for name in part.containers)
    firsts = np.cumsum([0, *(len(part.containers) for part in parts)])
    shifted = [
        np.where(part.container == OWN_FILE, OWN_FILE, part.container + first).astype(np.int32)
        for part, first in zip(parts, firsts.tolist(), strict=False)
    ]
    return Files(
        parts[0].root,
        containers,
        [name for part in parts for name in part.names],
        np.concatenate(shifted),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.sizes for part in parts]),
    )


def archive(root: str, name: str, prefix: str = "") -> Files:
    """Lists the files of the archive ``root/name``, with ``prefix`` before every name."""
    container = open_member(root, name)
    where = join_parts(root, name)
    return list_members(root, name, prefix, tar.read_members(container.scanner(), where, 0, container.size))


def archive_of_archives(root: str, name: str, prefix: str = "") -> Files:
    """Lists the files of the tars in the tar ``root/name``; those of ``x.tar`` are named ``PREFIXx/NAME``."""
    container = open_member(root, name)
    where = join_parts(root, name)
    outer = tar.read_members(container.scanner(_OUTER_BYTES), where, 0, container.size)
    if others := [member.name for member in outer if not member.name.endswith(".tar")]:
        raise DataError(f"{where} must contain tars only, but contains {others[0]!r}")

    def inner(member: tar.Member) -> list[tar.Member]:
        label, end = f"{where}:{member.name}", member.offset + member.size
        folder = member.name.removesuffix(".tar")
        return [
            tar.Member(f"{folder}/{name}", offset, size)
            for name, offset, size in tar.read_members(container.scanner(), label, member.offset, end)
        ]

    with ThreadPoolExecutor(_SCAN_THREADS, thread_name_prefix="index") as pool:
        progress = Progress(f"tars of {where} indexed", len(outer))
        members = [member for inside in progress.count(pool.map(inner, outer)) for member in inside]
    if len(members) > tar.MAX_MEMBERS:
        raise DataError(f"{where} contains {len(members)} files, more than {tar.MAX_MEMBERS}")
    return list_members(root, name, prefix, members)


def list_members(root: str, name: str, prefix: str, members: Sequence[tar.Member]) -> Files:
    """Returns the given files of the archive ``root/name``, with ``prefix`` before every name."""
    return Files(
        root,
        (name,),
        [prefix + member.name for member in members],
        np.zeros(len(members), np.int32),
        np.array([member.offset for member in members], np.int64),
        np.array([member.size for member in members], np.int64),
    )


def _loose(root: str, entries: Sequence[Entry]) -> Files:
    count = len(entries)
    return Files(
        root,
        (),
        [entry.name for entry in entries],
        np.full(count, OWN_FILE, np.int32),
        np.zeros(count, np.int64),
        np.array([entry.size for entry in entries], np.int64),
        np.array([entry.stamp for entry in entries], np.uint64),
    )


def _size(location: str) -> int:
    try:
        return store.size(location)
    except NotFoundError:
        return -1


def walk_folder(root: str) -> Files:
    """Lists the files below a folder, local or in an object store, without hidden ones."""
    return _loose(root, list(walk_remote(root) if root.startswith("s3://") else walk_local(Path(root))))


def open_own(root: str) -> Files:
    """Lists the files of a user's own folder or archive, and what in it is no file.

    Raises:
        ConfigError: ``root`` is neither a folder nor an archive.
        DataError: The archive is damaged, or a name leads out of it.
    """
    remote, skipped = root.startswith("s3://"), list[tuple[str, str]]()
    if _is_archive(root):
        try:
            container = open_member(root, "")
            members, others = tar.read_own_members(container.scanner(), root, 0, container.size)
        except DataError as error:
            if part := _describe_parts(root):
                raise DataError(f"{root} {part}") from error
            raise
        if said := tar.describe_escaped(member.name for member in members):
            log.warning("%s: %s", root, said)
        listed, skipped = list_members(root, "", "", members), list(others)
    elif remote or Path(root).is_dir():
        entries = walk_own_remote(root) if remote else walk_own(Path(root), skipped)
        listed = _loose(root, list(Progress(f"files of {root} listed").count(entries)))
    else:
        raise _no_data_error(root)
    hidden = {name: reason for name in listed.names if (reason := why_hidden(name))}
    unlisted = [(name, HIDDEN if why_hidden(name) and reason != HIDDEN_FOLDERS else reason) for name, reason in skipped]
    shown = np.array([name not in hidden for name in listed.names], bool)
    return dataclasses.replace(_select(listed, shown), skipped=(*unlisted, *hidden.items()))


def _no_data_error(root: str) -> ConfigError:
    if not os.path.lexists(root):
        above = Path(root).absolute()
        while not os.path.lexists(above):  # ends at / at the latest
            above = above.parent
        shown = root if len(root) <= _SHOWN else f"{root[:_SHOWN]}..."
        bare = root.strip("'\"").rstrip("\\")
        quoted = f"; {bare} does: quotes and backslashes count as they are" * (bare != root and os.path.lexists(bare))
        scheme = re.match(r"(s3|https?|file):/?(?!/)", root, re.IGNORECASE)
        address = f"; an address begins with {scheme[1].lower()}://" if scheme else ""
        return ConfigError(
            f"data.path '{escaped(shown)}' does not exist; of its folders, {above} does{quoted}{address}"
        )
    hint = "; give the folder with the images: tables in it are read" * root.lower().endswith(
        (".csv", ".jsonl", ".tsv", ".json", ".txt", ".lst", ".yaml", ".yml")
    )
    suffix = Path(root).suffix.lower()
    if suffix == ".exe":
        hint = "; if it is a self-extracting archive, unpack it and give the folder"
    if suffix in _OTHER_ARCHIVES:
        hint = "; unpack or mount it, and give the folder"
    elif suffix in _UNFINISHED:
        hint = "; its name is that of a download that has not finished"
    if form := find_format(root, Container(root).read(0, HEAD_BYTES) if Path(root).is_file() else b""):
        hint = f"; {describe(Path(root).name, form)}"
    return ConfigError(f"data.path {root} is neither a folder nor an archive ({', '.join(ARCHIVES)}){hint}")


def _describe_parts(root: str) -> str:
    """Returns that a damaged archive is one of the parts of a divided file, and what to do; empty otherwise."""
    if _PART.search(root):
        return "is by its name a part of a divided file: join all parts, as with cat, and give the whole"
    if root.lower().endswith(".zip") and Path(f"{root[:-4]}.z01").exists():
        return "is the last part of a divided zip: join the parts, as with zip -s 0 PARTS.zip --out WHOLE.zip"
    return ""


def _is_archive(root: str) -> bool:
    """Whether ``root`` is an archive: by its suffix, and for a local file of any suffix by its first bytes."""
    if root.startswith("s3://") or not Path(root).is_file():
        return root.lower().endswith(ARCHIVES) and not Path(root).is_dir()
    container = Container(root)
    is_tar = tar.is_header(container.read(0, tar.BLOCK))
    return is_tar or bool(decompress.find_compression(container)) or root.lower().endswith(ARCHIVES)


def _select(listed: Files, kept: NDArray[np.bool_]) -> Files:
    names = [name for name, is_kept in zip(listed.names, kept.tolist(), strict=True) if is_kept]
    return dataclasses.replace(
        listed,
        names=names,
        container=listed.container[kept],
        offsets=listed.offsets[kept],
        sizes=listed.sizes[kept],
        stamps=listed.stamps[kept] if len(listed.stamps) else listed.stamps,
    )
