"""Where the files of a tar lie, by its headers alone; nothing is ever extracted.

Own code instead of ``tarfile``, because ImageNet has 1.28 million members and ``tarfile`` makes an object with
twenty fields of each. It takes what official archives hold (USTAR, GNU long names, PAX paths and sizes) and
refuses the rest: links, devices, names that lead out of the archive, doubled names, a missing end.

Source of the format: POSIX.1-2017 ``pax`` (ustar interchange format), GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from infra.errors import DataError

BLOCK = 512
MAX_MEMBERS = 3_000_000  # of one archive; more than twice ImageNet
_MAX_EXTENSION = 2**20  # bytes of a long name or of PAX records
_ZEROS = bytes(BLOCK)
_REGULAR = b"0\0007"
_LINKS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
# What the names in the official archives are made of, and a little more.
_ALLOWED = re.compile(r"[A-Za-z0-9 _.,()'&+=@#!%~\[\]{}/-]+")

ReadAt = Callable[[int, int], bytes]  # (position, length) -> at most that many bytes


class Member(NamedTuple):
    """A regular file: ``size`` bytes from the absolute position ``offset``."""

    name: str
    offset: int
    size: int


def members(read_at: ReadAt, where: str, start: int, end: int) -> list[Member]:
    """The regular files of the tar that lies in ``[start, end)``, in its order, without hidden ones.

    Args:
        read_at: reads the container of the tar.
        where: name of the tar for messages.
        start: position of its first header.
        end: position after its last byte.

    Raises:
        DataError: damaged, cut off, or something that no official archive holds.
    """
    members_read: list[Member] = []
    seen: set[str] = set()
    position, long_name, long_size = start, "", -1
    while True:
        header = read_at(position, BLOCK) if position + BLOCK <= end else b""
        if header == _ZEROS:
            return members_read
        if len(header) < BLOCK:
            raise DataError(f"{where} is cut off: no end mark, a header is due at byte {position}, {end} bytes there")
        size, kind = _checked(header, where, position), header[156:157]
        if long_size >= 0 and kind not in b"xgLK":
            size = long_size
        position += BLOCK
        if position + size > end:
            raise DataError(f"{where} is cut off: a member needs bytes up to {position + size}, {end} are there")
        if kind in _REGULAR:
            name = _safe_name(long_name or _name(header), where)
            if name:
                if name in seen:
                    raise DataError(f"{where} holds {name} twice; no official archive does")
                seen.add(name)
                members_read.append(Member(name, position, size))
                if len(members_read) > MAX_MEMBERS:
                    raise DataError(f"{where} holds more than {MAX_MEMBERS} files")
            long_name, long_size = "", -1
        elif kind in b"xgLK":
            name, given = _extension(kind, read_at, where, position, size)
            long_name, long_size = name or long_name, given if given >= 0 else long_size
        elif kind == b"5":
            long_name, long_size = "", -1
        else:
            what = _LINKS.get(kind, f"of the unknown type {kind!r}")
            raise DataError(f"{where}: {long_name or _name(header)!r} is {what}; only files and folders are taken")
        position += -(-size // BLOCK) * BLOCK


def _checked(header: bytes, where: str, position: int) -> int:
    """The size that a header states, after its checksum."""
    try:
        stated = int(header[148:156].strip(b"\0 "), 8)
        if header[124] & 0x80:  # GNU: a binary number where eleven octal digits are too few
            size = int.from_bytes(header[125:136], "big")
        else:
            size = int(header[124:136].strip(b"\0 ") or b"0", 8)
    except ValueError:
        stated = size = -1
    if size < 0 or sum(header) - sum(header[148:156]) + 256 != stated:
        raise DataError(f"{where}: no tar header at byte {position}; is it a tar, and whole?")
    return size


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU tar's own magic has other things there
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "backslashreplace")


def _extension(kind: bytes, read_at: ReadAt, where: str, position: int, size: int) -> tuple[str, int]:
    """Long name and size (-1: none) that a GNU or PAX block gives to the next member."""
    if size > _MAX_EXTENSION:
        raise DataError(f"{where}: {size} bytes of names at byte {position}, more than {_MAX_EXTENSION}")
    data = read_at(position, size)
    if kind == b"L":
        return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace"), -1
    if kind == b"K":  # target of a link, which is refused next
        return "", -1
    records = _pax_records(data, where, position)
    if kind == b"g" and records.keys() & {"path", "size"}:
        raise DataError(f"{where}: one path or size for all members at byte {position}")
    if any(key.startswith("GNU.sparse") for key in records):
        raise DataError(f"{where}: a sparse file after byte {position}; only plain files are taken")
    given = records.get("size", "-1")
    if not re.fullmatch(r"-1|[0-9]{1,15}", given):
        raise DataError(f"{where}: size {given!r} at byte {position}")
    return records.get("path", ""), int(given)


def _pax_records(data: bytes, where: str, position: int) -> dict[str, str]:
    """Records ``LENGTH KEY=VALUE`` that end with a new line; LENGTH counts all of the record."""
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
    """The name without a leading ``./``; empty for what is ignored: hidden files, and macOS's shadows of files.

    Raises:
        DataError: absolute, leading out of the archive, or made of other characters than official names.
    """
    while name.startswith("./"):
        name = name[2:]
    if name.startswith("/") or f"/{name}/".find("/../") >= 0:
        raise DataError(f"{where}: {name!r} leads out of the archive")
    if name.startswith((".", "__MACOSX/")) or "/." in name:
        return ""
    if len(name) > 1024 or not _ALLOWED.fullmatch(name):
        raise DataError(f"{where}: no official archive has a name like {name[:200]!r}")
    return name
