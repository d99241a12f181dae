"""Locates the files in a tar from its headers; nothing is extracted.

Not ``tarfile``: ImageNet has 1.28 million members, and ``tarfile`` creates an object with twenty fields for every one.
Supported is what the official archives use (USTAR, GNU long names, PAX paths and sizes). Rejected are links, devices,
names outside the archive, duplicate names, and a missing end-of-archive marker.

Source of the format: POSIX.1-2017 ``pax`` (ustar interchange format), GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from infra.errors import DataError

BLOCK = 512
MAX_MEMBERS = 3_000_000  # per archive; more than twice ImageNet's
_MAX_EXTENSION = 2**20  # bytes of a long name or of PAX records
_ZEROS = bytes(BLOCK)
_REGULAR = b"0\0007"
_LINKS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
# The characters of the names in the official archives, and a few more.
_ALLOWED = re.compile(r"[A-Za-z0-9 _.,()'&+=@#!%~\[\]{}/-]+")

ReadAt = Callable[[int, int], bytes]  # (position, length) -> at most that many bytes


class Member(NamedTuple):
    """A regular file: ``size`` bytes from the absolute position ``offset``."""

    name: str
    offset: int
    size: int


def read_members(read_at: ReadAt, where: str, start: int, end: int) -> list[Member]:
    """Returns the regular files of the tar in ``[start, end)`` of its container, in order, without hidden ones.

    Args:
        read_at: Reader of the container.
        where: Name of the tar, for messages.
        start: Position of the first header.
        end: Position after the last byte.

    Raises:
        DataError: The tar is damaged or truncated, or contains something that official archives do not.
    """
    members: list[Member] = []
    seen: set[str] = set()
    position, long_name, long_size = start, "", -1
    while True:
        header = read_at(position, BLOCK) if position + BLOCK <= end else b""
        if header == _ZEROS:
            return members
        if len(header) < BLOCK:
            raise DataError(f"{where} is truncated: no end marker, and no header at byte {position} of {end}")
        size, kind = _read_size(header, where, position), header[156:157]
        if long_size >= 0 and kind not in b"xgLK":
            size = long_size
        position += BLOCK
        if position + size > end:
            raise DataError(f"{where} is truncated: a member extends to byte {position + size} of {end}")
        if kind in _REGULAR:
            name = _safe_name(long_name or _name(header), where)
            if name:
                if name in seen:
                    raise DataError(f"{where} contains {name} twice, which no official archive does")
                seen.add(name)
                members.append(Member(name, position, size))
                if len(members) > MAX_MEMBERS:
                    raise DataError(f"{where} contains more than {MAX_MEMBERS} files")
            long_name, long_size = "", -1
        elif kind in b"xgLK":
            name, next_size = _read_extension(kind, read_at, where, position, size)
            long_name, long_size = name or long_name, next_size if next_size >= 0 else long_size
        elif kind == b"5":
            long_name, long_size = "", -1
        else:
            what = _LINKS.get(kind, f"of the unknown type {kind!r}")
            raise DataError(f"{where}: {long_name or _name(header)!r} is {what}; only files and folders are supported")
        position += -(-size // BLOCK) * BLOCK


def _read_size(header: bytes, where: str, position: int) -> int:
    """Verifies the checksum of a header and returns the size of its member."""
    try:
        stated = int(header[148:156].strip(b"\0 "), 8)
        if header[124] & 0x80:  # GNU: a binary number if eleven octal digits are too few
            size = int.from_bytes(header[125:136], "big")
        else:
            size = int(header[124:136].strip(b"\0 ") or b"0", 8)
    except ValueError:
        stated = size = -1
    if size < 0 or sum(header) - sum(header[148:156]) + 256 != stated:
        raise DataError(f"{where}: no tar header at byte {position}; is it a complete tar?")
    return size


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU tar uses another magic, and this field otherwise
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "backslashreplace")


def _read_extension(kind: bytes, read_at: ReadAt, where: str, position: int, size: int) -> tuple[str, int]:
    """Returns the long name and the size (-1 if absent) that a GNU or PAX block states for the next member."""
    if size > _MAX_EXTENSION:
        raise DataError(f"{where}: {size} bytes of names at byte {position}, more than {_MAX_EXTENSION}")
    data = read_at(position, size)
    if kind == b"L":
        return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace"), -1
    if kind == b"K":  # target of a link, which is rejected next
        return "", -1
    records = _pax_records(data, where, position)
    if kind == b"g" and records.keys() & {"path", "size"}:
        raise DataError(
            f"{where}: a global path or size at byte {position}; only those of single members are supported"
        )
    if any(key.startswith("GNU.sparse") for key in records):
        raise DataError(f"{where}: a sparse file after byte {position}; only plain files are supported")
    stated = records.get("size", "-1")
    if not re.fullmatch(r"-1|[0-9]{1,15}", stated):
        raise DataError(f"{where}: invalid size {stated!r} at byte {position}")
    return records.get("path", ""), int(stated)


def _pax_records(data: bytes, where: str, position: int) -> dict[str, str]:
    """Parses records ``LENGTH KEY=VALUE`` that end with a newline; LENGTH counts the whole record."""
    records = {}
    while data:
        digits, _, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record, data = data[:length], data[length:]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n") or len(record) != length:
            raise DataError(f"{where}: damaged PAX records at byte {position}")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "backslashreplace")
    return records


def _safe_name(name: str, where: str) -> str:
    """Returns the name without a leading ``./``; empty for files to ignore: hidden ones and macOS resource forks.

    Raises:
        DataError: The name is absolute, outside the archive, or has characters that official names do not have.
    """
    while name.startswith("./"):
        name = name[2:]
    if name.startswith("/") or f"/{name}/".find("/../") >= 0:
        raise DataError(f"{where}: {name!r} is outside the archive")
    if name.startswith((".", "__MACOSX/")) or "/." in name:
        return ""
    if len(name) > 1024 or not _ALLOWED.fullmatch(name):
        raise DataError(f"{where}: no official archive has a name like {name[:200]!r}")
    return name
