"""The files of a data set by name, whether they lie in archives, in a folder, or in both; only headers are read.

An archive is a tar, or a tar of tars (ImageNet's training images), or a compressed one (``inflate.py``), on local
disk or in an object store. Whatever the official archives were, ``Files`` looks like the tree that extracting
them would have made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra import store
from infra.errors import ConfigError, DataError, NotFoundError
from infra.store import files
from models.data.sources import inflate, tar
from models.data.sources.container import join_parts, locate
from models.data.sources.reader import OWN_FILE, Reader, open_member

ARCHIVES = (".tar", *inflate.COMPRESSED)
_SCAN_THREADS = 8  # a cold disk or an object store answers several faster than one after the other
_OUTER_BYTES = 2**16  # between two headers of a tar of tars lie a hundred megabytes
_MAX_DEPTH = 8
_HIDDEN = (".", "__MACOSX")


@dataclass(frozen=True)
class Files:
    """N files below ``root``.

    Attributes:
        root: folder or archive, a local path or an ``s3://`` uri.
        containers: the archives, relative to ``root``; empty string: ``root`` itself is one.
        names: paths with ``/``, relative to the archive or to ``root``.
        container: ``[N]`` index into ``containers``; ``OWN_FILE``: the file ``root/name``.
        offsets: ``[N]`` first byte of the file in its container.
        sizes: ``[N]`` bytes.
    """

    root: str
    containers: tuple[str, ...]
    names: list[str]
    container: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def find(self, name: str) -> int | None:
        """Row of the file ``name``, or of the one nearest to the root whose path ends with it."""
        ending = f"/{name}"
        rows = [row for row, path in enumerate(self.names) if path == name or path.endswith(ending)]
        return min(rows, key=lambda row: (self.names[row].count("/"), row), default=None)

    def folder(self, name: str) -> dict[str, int]:
        """Rows of the files below the folder ``name`` (the one nearest to the root), by path in it."""
        infix, nearest = f"/{name}/", 10**6
        rows: dict[str, int] = {}
        for row, path in enumerate(self.names):
            at = f"/{path}".find(infix)
            if at < 0 or (depth := path.count("/", 0, at)) > nearest:
                continue
            if depth < nearest:
                nearest, rows = depth, {}
            rows.setdefault(path[at + len(infix) - 1 :], row)  # an archive's file goes before a loose one
        return rows

    def read(self, row: int) -> bytes:
        """The bytes of one file; ``DataError`` when they are not there."""
        return self.reader([row])(0)

    def reader(self, rows: Sequence[int] | NDArray[np.int64]) -> Reader:
        """A reader whose index i is the file of ``rows[i]``."""
        chosen = np.asarray(rows, np.int64)
        container = self.container[chosen]
        loose = np.any(container == OWN_FILE)
        paths = [os.fsencode(self.names[row]) for row in chosen.tolist()] if loose else []
        return Reader(
            self.root, self.containers, container, self.offsets[chosen], self.sizes[chosen], np.array(paths, np.bytes_)
        )


def open_files(path: str, names: Sequence[str]) -> Files:
    """What there is of a set at ``path``: one archive, or a folder with archives, loose files, or both.

    Args:
        path: ``data.path``.
        names: Official names of archives, of which the existing ones are opened, and of files beside them. A local
            folder, and a remote one without archives, is searched for other files too.

    Raises:
        ConfigError: there is nothing of the set.
        DataError: an archive is damaged or unsafe.
    """
    root = locate(path)
    archives = [name for name in names if name.endswith(ARCHIVES)]
    if root.lower().endswith(ARCHIVES) and (root.startswith("s3://") or Path(root).is_file()):
        return merge_files([archive(root, "")])
    if root.startswith("s3://"):
        parts = [archive(root, name) for name in archives if store.exists(join_parts(root, name))]
        if parts:  # who keeps the archives there may keep much else
            parts += [
                _loose(root, [(name, size)])
                for name in names
                if name not in archives and (size := _size(join_parts(root, name))) >= 0
            ]
        else:
            parts = [walk_folder(root)]
    else:
        with files.errors(Path(root)):
            if not Path(root).is_dir():
                raise ConfigError(f"data.path {root} is neither a folder nor an archive ({', '.join(ARCHIVES)})")
        present = [name for name in archives if (Path(root) / name).is_file()]
        entries = [entry for entry in _walked(Path(root)) if entry[0] not in archives]
        parts = [*(archive(root, name) for name in present), _loose(root, entries)]
    if not any(part.names for part in parts):
        raise ConfigError(f"data.path {root} holds nothing; looked for {', '.join(names)}")
    return merge_files(parts)


def merge_files(parts: Sequence[Files]) -> Files:
    """All files of all parts, which have one root."""
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
    """The files of the archive ``root/name``, with ``prefix`` before each name."""
    container = open_member(root, name)
    where = join_parts(root, name)
    return _files(root, name, prefix, tar.members(container.scanner(), where, 0, container.size))


def archive_of_archives(root: str, name: str, prefix: str = "") -> Files:
    """The files of the tars in the tar ``root/name``; those of ``x.tar`` are named ``PREFIXx/NAME``."""
    container = open_member(root, name)
    where = join_parts(root, name)
    outer = tar.members(container.scanner(_OUTER_BYTES), where, 0, container.size)
    if other := [member.name for member in outer if not member.name.endswith(".tar")]:
        raise DataError(f"{where} should hold tars only, and holds {other[0]!r}")

    def inner(member: tar.Member) -> list[tar.Member]:
        label, end = f"{where}:{member.name}", member.offset + member.size
        folder = member.name.removesuffix(".tar")
        return [
            tar.Member(f"{folder}/{name}", offset, size)
            for name, offset, size in tar.members(container.scanner(), label, member.offset, end)
        ]

    with ThreadPoolExecutor(_SCAN_THREADS, thread_name_prefix="index") as pool:
        members = [member for inside in pool.map(inner, outer) for member in inside]
    if len(members) > tar.MAX_MEMBERS:
        raise DataError(f"{where} holds {len(members)} files, more than {tar.MAX_MEMBERS}")
    return _files(root, name, prefix, members)


def _files(root: str, name: str, prefix: str, members: Sequence[tar.Member]) -> Files:
    return Files(
        root,
        (name,),
        [prefix + member.name for member in members],
        np.zeros(len(members), np.int32),
        np.array([member.offset for member in members], np.int64),
        np.array([member.size for member in members], np.int64),
    )


def _loose(root: str, entries: Sequence[tuple[str, int]]) -> Files:
    count = len(entries)
    sizes = np.array([size for _, size in entries], np.int64)
    containers = np.full(count, OWN_FILE, np.int32)
    return Files(root, (), [name for name, _ in entries], containers, np.zeros(count, np.int64), sizes)


def _size(location: str) -> int:
    try:
        return store.size(location)
    except NotFoundError:
        return -1


def _walked(root: Path, below: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """Names and sizes of the files below a local folder, sorted, without hidden ones; links are followed."""
    with files.errors(root / below):
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(_HIDDEN):
            continue
        name = f"{below}{entry.name}"
        if entry.is_file():
            yield name, entry.stat().st_size
        elif entry.is_dir() and depth < _MAX_DEPTH:
            yield from _walked(root, f"{name}/", depth + 1)


def _listed(root: str) -> Iterator[tuple[str, int]]:
    """Names and sizes of the objects below an ``s3://`` folder, as ``_walked`` would tell them of a local one."""
    for uri, size in store.list_sizes(root):
        name = uri.removeprefix(f"{root}/")
        parts = name.split("/")
        # A name that ends in a slash is how some tools show a folder.
        if len(parts) <= _MAX_DEPTH + 1 and all(one and not one.startswith(_HIDDEN) for one in parts):
            yield name, size


def walk_folder(root: str) -> Files:
    """The files below a folder, local or in an object store, without hidden ones."""
    return _loose(root, list(_listed(root) if root.startswith("s3://") else _walked(Path(root))))
