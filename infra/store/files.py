"""The ``file://`` half of ``infra/store/__init__.py``: whole files, written at once or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def make_private(folder: Path) -> None:
    """Makes a folder for this user alone (0700), with its missing parents; one that is there keeps its mode."""
    for path in [*reversed(folder.parents), folder]:
        if not path.exists():
            with suppress(FileExistsError):
                path.mkdir(mode=0o777 & ~umask_in(path))


def umask_in(folder: Path) -> int:
    """The umask for what is written below ``folder``: 077, but 007 where it is shared by a group.

    Shared means that the group may write and inherits what is made there, as after
    ``install -d -m 2770 -g GROUP runs``; nobody outside of the group ever reads what we write. Decided by the nearest
    folder that is there.
    """
    there = next((path for path in [folder, *folder.parents] if path.exists()), folder.parent)
    shared, mode = stat.S_ISGID | stat.S_IWGRP, there.stat().st_mode
    return 0o007 if mode & shared == shared and not mode & stat.S_IWOTH else 0o077


@contextmanager
def private(folder: Path) -> Iterator[None]:
    """What this process and its children write within the block is for those who may write into ``folder``."""
    before = os.umask(umask_in(folder))
    try:
        yield
    finally:
        os.umask(before)


def open_ours(path: Path, mode: int = 0o660) -> int:
    """Opens or makes a file of a name that others could guess, for reading and writing; its descriptor.

    In a folder into which strangers may write, the name could be a link to a file that they want us to overwrite.

    Raises:
        ConfigError: the path is no plain file, is one of several names of a file, or belongs to another user in a
            folder into which everybody may write.
    """
    with errors(path):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a pipe
                raise _not_ours(path) from error
            raise
    there = os.fstat(descriptor)
    strange = there.st_uid != os.geteuid() and path.parent.stat().st_mode & stat.S_IWOTH
    if not stat.S_ISREG(there.st_mode) or there.st_nlink > 1 or strange:
        os.close(descriptor)
        raise _not_ours(path)
    return descriptor


def _not_ours(path: Path) -> ConfigError:
    return ConfigError(f"{path} is a link or another user's file; delete it, or give a folder of your own")


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
