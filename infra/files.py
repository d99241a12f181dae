"""The ``file://`` half of ``infra/store.py``: whole files, written at once or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from infra.errors import ConfigError, EffnetError, NotFoundError, TransientError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PERSON = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
_PARTIAL = ".partial"


def _explained(error: OSError, path: Path) -> EffnetError:
    if error.errno in _DISK_FULL:
        return ConfigError(f"disk full: {path} cannot be written ({error.strerror}); free some space")
    if error.errno == errno.ENOENT:
        return NotFoundError(f"no file at {path}")
    if error.errno in _PERSON:
        return ConfigError(f"{path}: {error.strerror}")
    return TransientError(f"{path}: {error.strerror or error}")


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` about ``path`` into ours.

    Raises:
        ConfigError: the disk is full, or the path cannot be used by this user.
        NotFoundError: there is no such file.
        TransientError: anything else that the system reports.
    """
    try:
        yield
    except OSError as error:
        raise _explained(error, path) from error


@contextmanager
def _partial_of(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside ``path`` (a rename within one folder is atomic); gone at the end in any case."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    with errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = partial.open("xb")
    try:
        with stream:
            yield partial, stream
    except OSError as error:
        # The caller's block runs here too: only a full disk is surely about our file.
        if error.errno in _DISK_FULL:
            raise _explained(error, path) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _settle(stream: BinaryIO, path: Path) -> None:
    with errors(path):
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may forget the new name although the bytes are on the disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes appear at ``path`` when the block ends well, and nowhere when it raises."""
    with _partial_of(path) as (partial, stream):
        yield stream
        _settle(stream, path)
        with errors(path):
            partial.replace(path)
            _sync_folder(path.parent)


def write(path: Path, data: bytes) -> bool:
    """Puts ``data`` at ``path``, whole or not at all; always True."""
    with open_atomic(path) as stream:
        stream.write(data)
    return True


def write_if_absent(path: Path, data: bytes) -> bool:
    """Creates ``path`` with all of ``data``; False when it exists. Of many writers exactly one gets True."""
    with _partial_of(path) as (partial, stream):
        stream.write(data)
        _settle(stream, path)
        try:
            # A link fails when the name is taken; an exclusive open would show a half-written file meanwhile.
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise _explained(error, path) from error
        with errors(path):
            _sync_folder(path.parent)
        return True


def read_range(path: Path, start: int, length: int) -> bytes:
    """At most ``length`` bytes of ``path`` from ``start``."""
    with errors(path), path.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)


def size(path: Path) -> int:
    """Bytes in ``path``.

    Raises:
        NotFoundError: there is no such file (a folder is no file).
    """
    with errors(path):
        if not path.is_file():
            raise NotFoundError(f"no file at {path}" + (" (it is a folder)" if path.is_dir() else ""))
        return path.stat().st_size


def files_under(folder: Path) -> list[Path]:
    """All finished files under ``folder``, sorted; none when it does not exist."""
    with errors(folder):
        found = (path for path in folder.rglob("*") if path.is_file())
        return sorted(path for path in found if not (path.name[0] == "." and path.suffix == _PARTIAL))


def delete_under(folder: Path) -> int:
    """Deletes ``folder`` and all in it; the number of files that were there."""
    count = len(files_under(folder))
    with errors(folder):
        if folder.is_dir():
            shutil.rmtree(folder)
    return count
