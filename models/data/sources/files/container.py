"""Random access to a large file, local or in an object store, from many threads concurrently."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from conf.overrides import expand_home
from infra import store
from infra.errors import ConfigError
from infra.store import files
from models.data.sources.files.tar import ReadAt

SCAN_BYTES = 8 * 2**20  # per request to an object store while headers are scanned


def locate(path: str) -> str:
    """Turns the data path of a user into a local path or an ``s3://`` uri, without a trailing slash."""
    if path.startswith("s3://"):
        if not path.removeprefix("s3://").partition("/")[0]:
            raise ConfigError(f"data.path {path!r} names no bucket: s3://BUCKET/FOLDER")
        return path.rstrip("/")
    local = path.removeprefix("file://")
    if "://" in local:
        raise ConfigError(f"data.path {path!r} is neither a local path nor s3://bucket/folder")
    return str(Path(expand_home(local)))


def locate_uri(location: str) -> str:
    """Returns the URI of a location that ``locate`` returned."""
    return location if location.startswith("s3://") else f"file://{Path(location).absolute()}"


def join_parts(root: str, name: str) -> str:
    """Returns the location of ``name`` below ``root``; an empty name is the root itself."""
    if not name:
        return root
    return store.join(root, name) if root.startswith("s3://") else str(Path(root) / name)


class Container:
    """Opens ``location``, a local path or an ``s3://`` uri.

    Attributes:
        location: The location that was opened.
        size: Number of bytes.
        stamp: Text that changes when the file or object changes.

    Raises:
        NotFoundError: The file does not exist.
        ConfigError: This user may not read it.
    """

    _descriptor = -1

    def __init__(self, location: str) -> None:
        self.location = location
        self.remote = location.startswith("s3://")
        if self.remote:
            entry = store.find_entry(location)
            self.size, self.stamp = entry.size, f"{location}\n{entry.modified}\n{entry.etag}"
            return
        self._path = Path(location)  # kept, because creating it takes longer than reading a header
        self.size = files.size(self._path)
        with files.errors(self._path):
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self.stamp = f"{self._path.resolve()}\n{os.fstat(self._descriptor).st_mtime_ns}"

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, position: int, length: int) -> bytes:
        """Returns ``length`` bytes from ``position``, fewer only at the end of the file."""
        if self.remote:
            length = min(length, self.size - position)
            return store.read_range(self.location, position, length) if length > 0 else b""
        with files.errors(self._path):
            return os.pread(self._descriptor, length, position)

    def read_into(self, position: int, target: memoryview) -> int:
        """Fills ``target`` from ``position``; returns the number of bytes, fewer only at the end of the file."""
        if self.remote:
            data = self.read(position, len(target))
            target[: len(data)] = data
            return len(data)
        with files.errors(self._path):
            return os.preadv(self._descriptor, [target], position)

    def scanner(self, block_bytes: int = SCAN_BYTES) -> ReadAt:
        """Returns a ``read`` for one thread that advances in small steps, with few requests to an object store."""
        if not self.remote:
            return self.read
        start, block = 0, b""

        def read_at(position: int, length: int) -> bytes:
            nonlocal start, block
            if not start <= position <= position + length <= start + len(block):
                start, block = position, self.read(position, max(length, block_bytes))
            return block[position - start : position - start + length]

        return read_at

    def stream(self) -> io.BufferedReader:
        """Returns a seekable binary file."""
        return io.BufferedReader(_Raw(self), SCAN_BYTES if self.remote else 2**20)


class _Raw(io.RawIOBase):
    def __init__(self, container: Container) -> None:
        self._container = container
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._container.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._container.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
