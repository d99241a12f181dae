"""The ``file://`` half of ``infra/store/__init__.py``; files are written atomically."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from infra.errors import ConfigError, EffnetError, NotFoundError, TransientError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_USER_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
_PARTIAL = ".partial"


def translate(error: OSError, path: Path) -> EffnetError:
    """Returns the error of the kinds that ``errors`` raises for what the system reports about ``path``."""
    if error.errno in _DISK_FULL:
        return ConfigError(f"disk full: {path} cannot be written ({error.strerror}); free some space")
    if error.errno == errno.ENOENT:
        return NotFoundError(f"no file at {path}")
    if error.errno in _USER_ERRORS:
        return ConfigError(f"{path}: {error.strerror}")
    return TransientError(f"{path}: {error.strerror or error}")


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """Translates an ``OSError`` about ``path`` into an ``EffnetError``.

    Raises:
        ConfigError: The disk is full, or this user cannot use the path.
        NotFoundError: The file does not exist.
        TransientError: Any other error that the system reports.
    """
    try:
        yield
    except OSError as error:
        raise translate(error, path) from error


def make_private(folder: Path) -> None:
    """Creates a folder and its missing parents for this user only (0700); existing folders keep their mode."""
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            make_folder(path, 0o777 & ~umask_in(path))


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Creates a folder, unless it exists; raises PermissionError where its parent exists but takes none, as /proc."""
    try:
        path.mkdir(mode, exist_ok=True)
    except FileNotFoundError as error:
        if not path.parent.exists():
            make_folder(path.parent)
            make_folder(path, mode)
            return
        raise PermissionError(errno.EACCES, "no folder can be made here", str(path)) from error


def umask_in(folder: Path) -> int:
    """Returns the umask for files below ``folder``: 077, or 007 if a group shares the folder.

    Shared means that the group may write and that new files inherit the group, as after
    ``install -d -m 2770 -g GROUP runs``; users outside the group can never read the files. The nearest existing
    folder decides.
    """
    nearest = next((path for path in [folder, *folder.parents] if path.exists()), folder.parent)
    shared, mode = stat.S_ISGID | stat.S_IWGRP, nearest.stat().st_mode
    return 0o007 if mode & shared == shared and not mode & stat.S_IWOTH else 0o077


@contextmanager
def private(folder: Path) -> Iterator[None]:
    """Sets the umask of ``folder`` for this process and its children within the block."""
    previous = os.umask(umask_in(folder))
    try:
        yield
    finally:
        os.umask(previous)


def open_ours(path: Path, mode: int = 0o660) -> int:
    """Opens or creates a file with a guessable name for reading and writing; returns its descriptor.

    In a world-writable folder, another user could place a link of that name to a file that should be overwritten.

    Raises:
        ConfigError: The path is not a regular file, has several hard links, or belongs to another user in a
            world-writable folder.
    """
    with errors(path):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a pipe
                raise _foreign_file_error(path) from error
            raise
    status = os.fstat(descriptor)
    is_foreign = status.st_uid != os.geteuid() and path.parent.stat().st_mode & stat.S_IWOTH
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or is_foreign:
        os.close(descriptor)
        raise _foreign_file_error(path)
    return descriptor


def _foreign_file_error(path: Path) -> ConfigError:
    return ConfigError(f"{path} is a link or another user's file; delete it, or give a folder of your own")


@contextmanager
def _open_partial(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yields a new file beside ``path`` (a rename within one folder is atomic) and removes it in any case."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    with errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = partial.open("xb")
    try:
        with stream:
            yield partial, stream
    except OSError as error:
        # The caller's block runs here too: only a full disk is certainly about this file.
        if error.errno in _DISK_FULL:
            raise translate(error, path) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _flush(stream: BinaryIO, path: Path) -> None:
    with errors(path):
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    # Without this, a power cut may lose the new name although the bytes are on the disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Yields a stream whose bytes appear at ``path`` only if the block ends without an error."""
    with _open_partial(path) as (partial, stream):
        yield stream
        _flush(stream, path)
        with errors(path):
            partial.replace(path)
            _sync_folder(path.parent)


def write(path: Path, data: bytes) -> bool:
    """Writes ``data`` to ``path`` atomically; returns True."""
    with open_atomic(path) as stream, errors(path):
        stream.write(data)
    return True


def write_if_absent(path: Path, data: bytes) -> bool:
    """Creates ``path`` with ``data`` atomically; False if it exists. Of concurrent writers exactly one gets True."""
    with _open_partial(path) as (partial, stream):
        with errors(path):
            stream.write(data)
        _flush(stream, path)
        try:
            # A link fails if the name exists; an exclusive open would expose a half-written file.
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise translate(error, path) from error
        with errors(path):
            _sync_folder(path.parent)
        return True


def read_range(path: Path, start: int, length: int) -> bytes:
    """Returns at most ``length`` bytes of ``path`` from offset ``start``."""
    with errors(path), path.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)


def size(path: Path) -> int:
    """Returns the size of ``path`` in bytes.

    Raises:
        NotFoundError: The file does not exist (a folder is not a file).
    """
    with errors(path):
        if not path.is_file():
            raise NotFoundError(f"no file at {path}" + (" (it is a folder)" if path.is_dir() else ""))
        return path.stat().st_size


def modified(path: Path) -> float:
    """Returns when ``path`` was last written, in unix seconds."""
    with errors(path):
        return path.stat().st_mtime


def files_under(folder: Path) -> list[Path]:
    """Returns all complete files under ``folder``, sorted; an empty list if the folder does not exist.

    Links to folders are not followed. What another process deletes meanwhile is not listed.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            raise error  # part of the files would look like all of them

    with errors(folder):
        paths = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=fail) for name in names)
        return sorted(
            path for path in paths if not (path.name[0] == "." and path.suffix == _PARTIAL) and path.is_file()
        )


def measure(path: Path) -> tuple[int, float] | None:
    """Returns the size of a listed file in bytes and when it was last written; None if it is gone by now."""
    with errors(path):
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return status.st_size, status.st_mtime


def delete_under(folder: Path) -> int:
    """Deletes ``folder`` with its contents and returns the number of deleted files."""
    count = len(files_under(folder))
    with errors(folder):
        if folder.is_dir():
            shutil.rmtree(folder)
    return count
