"""Decompresses archives once, as a stream, into a plain tar, because a compressed archive has no random access.

The plain tar is in ``RUN_DIR/cache/archives``, or in ``EFFNET_CACHE/archives`` where that is set, named by location,
size and modification time of the archive. It may be deleted at any time. ImageNet's archives are plain tars and are
read in place. Nothing is extracted: files are read from the plain tar by position.
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

from conf.text import escaped, logger
from infra.environment import cache_folder, make_cache
from infra.errors import DataError
from infra.store import files
from models.data.sources.files.container import Container
from models.data.sources.files.tar import BLOCK, MAX_MEMBERS, is_header

log = logger()
COMPRESSED = (".tgz", ".tar.gz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz", ".zip")
MAX_RATIO, MAX_BYTES = 20, 64 * 2**30  # photographs hardly compress; the largest data set, Food-101, has 5 GB
SMALL_BYTES = 64 * 2**20  # no limit on the ratio below this size: lists of names compress well
_ZIP, _GZIP, _BZIP2, _XZ = "zip", "gzip", "bzip2", "xz"
_READ = ((b"PK\x03\x04", _ZIP), (b"PK\x05\x06", _ZIP), (b"\x1f\x8b", _GZIP), (b"BZh", _BZIP2), (b"\xfd7zXZ\0", _XZ))
_NOT_READ = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard"),
    (b"\x04\x22\x4d\x18", "compressed by LZ4"),
    (b"\x1f\x9d", "compressed by compress"),
    (b"\x5d\0\0", "compressed by lzma"),
    (b"PK\x07\x08", "the first part of a divided zip"),
)
_NO_ARCHIVES = (
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the archive"),
    (b"<", "a web page or XML and no archive; download it again"),
    (b"{", "JSON text and no archive, as an error that a server reports; download it again"),
)
_PROGRAMS = (b"MZ", b"\x7fELF")  # of Windows and Linux, which may have a zip behind them that they unpack
_UTF8_NAME = 0x800  # flag of an entry of a zip
_CHUNK_BYTES = 2**20
_MAX_LINK_BYTES = 4096
_XZ_MEMORY_BYTES = 256 * 2**20  # four times the need of `xz -9`
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, UnicodeDecodeError)


def find_compression(archive: Container) -> str:
    """Returns the kind of a compressed archive by its first bytes; empty for a plain tar, and for what is no archive.

    Raises:
        DataError: It is compressed in a way that is not read; the message names it.
    """
    head = archive.read(0, BLOCK)
    if not head:
        raise DataError(f"{archive.location} is empty")
    if is_header(head):
        return ""
    for signature, kind in _NOT_READ:
        if head.startswith(signature):
            raise DataError(f"{archive.location} is {kind}, which is not read; unpack it and give the folder")
    for signature, what in _NO_ARCHIVES:
        if head.startswith(signature):
            raise DataError(f"{archive.location} is {what}")
    kind = next((kind for signature, kind in _READ if head.startswith(signature)), "")
    if kind or not (archive.location.lower().endswith(".zip") or head.startswith(_PROGRAMS)):
        return kind
    if archive.location.lower().endswith(".zip"):
        return _ZIP  # damaged, unless it begins with something else
    with archive.stream() as stream:
        return _ZIP if zipfile.is_zipfile(stream) else ""


def ensure_plain(archive: Container) -> Path:
    """Returns the path of the archive's plain tar; one process decompresses it while others wait.

    Raises:
        DataError: The archive is damaged or truncated, or its content exceeds the limits.
        ConfigError: The disk is full, or the cache cannot be written.
    """
    folder = cache_folder() / "archives"
    key = hashlib.sha256(f"{archive.stamp}\n{archive.size}".encode()).hexdigest()[:32]
    path = folder / f"{key}.tar"
    if path.exists():
        return path
    make_cache(folder)
    with os.fdopen(files.open_ours(folder / f"{key}.lock"), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():  # else another process has decompressed it in the meantime
            log.info("decompressing %s once, to %s", archive.location, path)
            _decompress(archive, path)
    return path


def _decompress(archive: Container, path: Path) -> None:
    limit = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * archive.size))
    written = 0
    with files.open_atomic(path) as out:
        for chunk in _read_plain(archive, limit):
            written += len(chunk)
            if written > limit:
                raise _bomb_error(archive, limit)
            out.write(chunk)


def _bomb_error(archive: Container, limit: int) -> DataError:
    return DataError(
        f"{archive.location}: its {archive.size} bytes decompress to more than {limit}, as those of few data sets "
        "do; unpack it and give the folder if it is one"
    )


def _read_plain(archive: Container, limit: int) -> Iterator[bytes]:
    """Yields the plain tar in chunks of bounded size; errors of the decompressor become DataError."""
    kind, is_first = find_compression(archive), True
    with archive.stream() as stream:
        if kind == _ZIP:
            chunks = _read_zip(archive, stream, limit)
        elif kind == _XZ:
            chunks = _read_xz(stream)
        else:
            opener = bz2.open if kind == _BZIP2 else gzip.open
            chunks = _read_chunks(cast(BinaryIO, opener(stream, "rb")))
        while True:
            try:
                chunk = next(chunks, b"")
            except NotImplementedError as error:
                raise DataError(f"{archive.location}: {error}; unpack it and give the folder") from error
            except _DAMAGE as error:
                raise DataError(f"{archive.location} is damaged or truncated: {error}; download it again") from error
            if not chunk:
                return
            if (
                is_first
                and kind != _ZIP
                and (twice := next((one for sign, one in _READ if chunk.startswith(sign)), ""))
            ):
                raise DataError(f"{archive.location} is a {twice} file within a {kind} file: decompress it once")
            if is_first and kind != _ZIP and chunk[:BLOCK].strip(b"\0") and not is_header(chunk[:BLOCK]):
                raise DataError(f"{archive.location} is a {kind} file of something else than a tar: decompress it")
            is_first = False
            yield chunk


def _read_chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _read_xz(stream: IO[bytes]) -> Iterator[bytes]:
    """Yields the content of an xz file: of one stream, or of several with zeros between them."""
    rest = stream.read(_CHUNK_BYTES)
    while rest:
        # Not lzma.open, which allocates as much memory as the file requests.
        decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)
        while not decompressor.eof:
            data = b""
            if decompressor.needs_input:
                data, rest = rest or stream.read(_CHUNK_BYTES), b""
                if not data:
                    raise EOFError("the compressed stream has no end")
            if chunk := decompressor.decompress(data, _CHUNK_BYTES):
                yield chunk
        rest = decompressor.unused_data.lstrip(b"\0")
        while not rest and (data := stream.read(_CHUNK_BYTES)):
            rest = data.lstrip(b"\0")


def _read_zip(archive: Container, stream: IO[bytes], limit: int) -> Iterator[bytes]:
    """Yields the files of a zip as a tar; ``tar.read_members`` checks their names later."""
    with zipfile.ZipFile(stream) as zipped:
        entries = [entry for entry in zipped.infolist() if not entry.is_dir()]
        if len(entries) > MAX_MEMBERS or sum(entry.file_size for entry in entries) > limit:
            raise _bomb_error(archive, limit)
        if foreign := [entry.filename for entry in entries if not _has_utf8_name(entry)]:
            log.warning(
                "%s: %s names are not UTF-8 and are read as code page 437, first %s",
                archive.location,
                f"{len(foreign):,}",
                escaped(foreign[0]),
            )
        for entry in entries:
            if entry.flag_bits & 1:
                raise DataError(f"{archive.location}: {entry.filename!r} is encrypted; unpack the archive first")
            header = tarfile.TarInfo(_name_of(entry))
            if (entry.external_attr >> 28) == 0o12:  # a symbolic link, whose content is its target
                with zipped.open(entry) as member:
                    header.type, header.linkname = tarfile.SYMTYPE, os.fsdecode(member.read(_MAX_LINK_BYTES))
                yield header.tobuf(tarfile.GNU_FORMAT)
                continue
            header.size = entry.file_size
            yield header.tobuf(tarfile.GNU_FORMAT)
            with zipped.open(entry) as member:
                yield from _read_exactly(member, entry.file_size)
            if padding := -entry.file_size % BLOCK:
                yield bytes(padding)
    yield bytes(2 * BLOCK)


def _name_of(entry: zipfile.ZipInfo) -> str:
    """Returns the name of an entry; many programs write UTF-8 without the flag that says so."""
    return entry.filename.encode("cp437").decode() if _lacks_flag(entry) and _has_utf8_name(entry) else entry.filename


def _has_utf8_name(entry: zipfile.ZipInfo) -> bool:
    try:
        return not _lacks_flag(entry) or bool(entry.filename.encode("cp437").decode())
    except UnicodeDecodeError:
        return False


def _lacks_flag(entry: zipfile.ZipInfo) -> bool:
    """Whether zipfile has read the name as code page 437; from Python 3.12 on it prefers the Unicode path field."""
    return not entry.flag_bits & _UTF8_NAME and entry.filename == entry.orig_filename


def _read_exactly(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = stream.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise EOFError(f"{size} bytes of a file are missing")
        size -= len(chunk)
        yield chunk
