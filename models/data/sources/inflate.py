"""Compressed archives, which cannot be read from the middle: inflated once, as a stream, into a plain tar.

The plain tar is scratch, in ``EFFNET_CACHE/archives`` (``runs/cache/archives``) under a name made of where the
archive lies, its size and its time; it may be deleted at any time. ImageNet's own archives are plain and stay
where they are. Nothing is extracted: the files inside are read from the plain tar by position.
"""

from __future__ import annotations

import bz2
import fcntl
import gzip
import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from conf.text import logger
from infra.errors import DataError
from infra.store import files
from models.data.sources.container import Container
from models.data.sources.tar import BLOCK, MAX_MEMBERS

log = logger()
COMPRESSED = (".tgz", ".tar.gz", ".tar.xz", ".txz", ".tar.bz2", ".zip")
MAX_RATIO, MAX_BYTES = 20, 64 * 2**30  # photographs hardly shrink; the largest set, Food-101, has 5 GB
SMALL_BYTES = 64 * 2**20  # below this the ratio says nothing: lists of names shrink well
_CHUNK_BYTES = 2**20
_XZ_MEMORY_BYTES = 256 * 2**20  # four times what `xz -9` needs
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


def is_compressed(name: str) -> bool:
    """Whether the file is to be inflated before anything in it can be read."""
    return name.lower().endswith(COMPRESSED)


def plain(archive: Container) -> Path:
    """The archive's plain tar on local disk; of several processes one inflates while the others wait.

    Raises:
        DataError: damaged, cut off, or it grows beyond what such archives hold.
        ConfigError: the disk is full.
    """
    folder = Path(os.environ.get("EFFNET_CACHE", "runs/cache")) / "archives"
    key = hashlib.sha256(f"{archive.stamp}\n{archive.size}".encode()).hexdigest()[:32]
    path = folder / f"{key}.tar"
    if path.exists():
        return path
    with files.errors(folder):
        files.make_private(folder)
    with os.fdopen(files.open_ours(folder / f"{key}.lock"), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():  # else another process made it while we waited
            log.info("inflating %s once, to %s", archive.location, path)
            _inflate(archive, path)
    return path


def _inflate(archive: Container, path: Path) -> None:
    limit = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * archive.size))
    written = 0
    with files.open_atomic(path) as out:
        for piece in _pieces(archive, limit):
            written += len(piece)
            if written > limit:
                raise _too_much(archive, limit)
            out.write(piece)


def _too_much(archive: Container, limit: int) -> DataError:
    return DataError(
        f"{archive.location}: its {archive.size} bytes inflate to more than {limit}; no data set does that"
    )


def _pieces(archive: Container, limit: int) -> Iterator[bytes]:
    """The plain tar in pieces of bounded size; an error of the decompressor leaves as ours."""
    name = archive.location.lower()
    with archive.stream() as stream:
        if name.endswith(".zip"):
            pieces = _unzipped(archive, stream, limit)
        elif name.endswith("xz"):
            pieces = _unpacked_xz(stream)
        else:
            opener = bz2.open if name.endswith(".bz2") else gzip.open
            pieces = _chunks(cast(BinaryIO, opener(stream, "rb")))
        while True:
            try:
                piece = next(pieces, b"")
            except _DAMAGE as error:
                raise DataError(f"{archive.location} is damaged or cut off: {error}; fetch it again") from error
            if not piece:
                return
            yield piece


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _unpacked_xz(stream: IO[bytes]) -> Iterator[bytes]:
    # Not lzma.open: it takes whatever memory the file asks for.
    unpacker = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)
    while True:
        data = stream.read(_CHUNK_BYTES) if unpacker.needs_input else b""
        if unpacker.needs_input and not data:
            raise EOFError("the compressed stream has no end")
        if piece := unpacker.decompress(data, _CHUNK_BYTES):
            yield piece
        if unpacker.eof:
            rest = unpacker.unused_data.strip(b"\0") or stream.read(_CHUNK_BYTES).strip(b"\0")
            if rest:
                raise DataError("something follows the end of the compressed stream")
            return


def _unzipped(archive: Container, stream: IO[bytes], limit: int) -> Iterator[bytes]:
    """The files of a zip as members of a tar; ``tar.members`` judges their names later."""
    with zipfile.ZipFile(stream) as zipped:
        entries = [entry for entry in zipped.infolist() if not entry.is_dir()]
        if len(entries) > MAX_MEMBERS or sum(entry.file_size for entry in entries) > limit:
            raise _too_much(archive, limit)
        for entry in entries:
            if (entry.external_attr >> 28) == 0o12:
                raise DataError(f"{archive.location}: {entry.filename!r} is a symbolic link; only files are taken")
            header = tarfile.TarInfo(entry.filename)
            header.size = entry.file_size
            yield header.tobuf(tarfile.GNU_FORMAT)
            with zipped.open(entry) as member:
                yield from _exactly(member, entry.file_size)
            if padding := -entry.file_size % BLOCK:
                yield bytes(padding)
    yield bytes(2 * BLOCK)


def _exactly(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = stream.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise EOFError(f"{size} bytes of a file are missing")
        size -= len(chunk)
        yield chunk
