"""Thread-safe reader of single images of a source: a range of an archive, or a separate file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra import store
from infra.errors import DataError, NotFoundError
from models.data.sources.files import decompress
from models.data.sources.files.container import Container, join_parts

OWN_FILE = -1  # in Reader.container


def open_member(root: str, name: str) -> Container:
    """Opens the archive ``root/name`` for reading by position; a compressed one is decompressed first."""
    container = Container(join_parts(root, name))
    if decompress.find_compression(container):
        return Container(str(decompress.ensure_plain(container)))
    return container


class Reader:
    """Maps an index to the bytes of a file.

    Args:
        root: Folder or archive, a local path or an ``s3://`` uri.
        containers: Archives, relative to ``root``.
        container: ``[N]``, index into ``containers``, or ``OWN_FILE``.
        offsets: ``[N]``, first byte in the container or file.
        sizes: ``[N]``, number of bytes.
        paths: ``[N]``, file below ``root`` where ``container`` is ``OWN_FILE``; may be empty if it never is.
        stamps: ``[N]``, stamp of the file, as of ``Files``; may be empty.
    """

    def __init__(
        self,
        root: str,
        containers: tuple[str, ...],
        container: NDArray[np.int32],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        paths: NDArray[np.bytes_],
        stamps: NDArray[np.uint64] | None = None,
    ) -> None:
        self.root = root
        self.containers = containers
        self.container = container
        self.offsets = offsets
        self.sizes = sizes
        self.paths = paths
        self.stamps = np.zeros(0, np.uint64) if stamps is None else stamps
        self._opened: dict[int, Container] = {}
        self._lock = threading.Lock()

    def select(self, rows: NDArray[np.int64]) -> Reader:
        """Returns a reader of some of the files, in this order."""
        paths = self.paths[rows] if len(self.paths) else self.paths
        stamps = self.stamps[rows] if len(self.stamps) else self.stamps
        return Reader(
            self.root, self.containers, self.container[rows], self.offsets[rows], self.sizes[rows], paths, stamps
        )

    def __call__(self, index: int) -> bytes:
        """Returns the bytes of file ``index``.

        Raises:
            DataError: The bytes are missing, incomplete or unreadable.
            TransientError: The object store does not respond.
        """
        data = bytearray(int(self.sizes[index]))
        with memoryview(data) as target:
            self.into(index, target)
        return bytes(data)

    def into(self, index: int, target: memoryview) -> None:
        """Fills ``target``, which has the size of file ``index``; raises as ``__call__``."""
        number, offset = int(self.container[index]), int(self.offsets[index])
        if number == OWN_FILE:
            where = join_parts(self.root, os.fsdecode(bytes(self.paths[index])))
            count = _read_file(where, offset, target)
        else:
            container = self._container(number)
            where, count = container.location, container.read_into(offset, target)
        if count != len(target):
            raise DataError(
                f"{where}: {len(target)} bytes expected at byte {offset}, {count} read; did the file change?"
            )

    def _container(self, number: int) -> Container:
        container = self._opened.get(number)
        if container is None:
            with self._lock:
                container = self._opened.get(number)
                if container is None:
                    container = self._opened[number] = open_member(self.root, self.containers[number])
        return container


def _read_file(where: str, offset: int, target: memoryview) -> int:
    """Fills ``target`` from a separate file; returns the number of bytes read."""
    if where.startswith("s3://"):
        try:
            target[:] = store.read_range(where, offset, len(target)) if target else b""
        except NotFoundError as error:
            raise DataError(f"{where} cannot be read: the object no longer exists") from error
        return len(target)
    try:
        with Path(where).open("rb", buffering=0) as stream:
            stream.seek(offset)
            return stream.readinto(target)
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}") from error
