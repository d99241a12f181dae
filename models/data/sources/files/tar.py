"""Locates the files in a tar from its headers; nothing is extracted.

Not ``tarfile``: ImageNet has 1.28 million members, and ``tarfile`` creates an object with twenty fields for every one.
Supported is what the official archives use (USTAR, GNU long names, PAX paths and sizes). Of official archives, links,
devices, unusual names and duplicate names are rejected; of a user's own, only names outside the archive. A missing
end-of-archive marker is always an error.

Source of the format: POSIX.1-2017 ``pax`` (ustar interchange format), GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from infra.errors import DataError

BLOCK = 512
MAX_MEMBERS = 3_000_000  # per archive; more than twice ImageNet's
_MAX_EXTENSION = 2**20  # bytes of a long name or of PAX records
_ZEROS = bytes(BLOCK)
_SKIPPED = 2**20  # bytes that are read at a time behind the end marker
_REGULAR = b"0\0007"
_EXTENSIONS = b"xgLK"
_MAX_LINKS = 40  # from one to the next, as Linux
_OF_BACKUPS = b"DV"  # GNU's list of a folder's files, in incremental archives, and the label of an archive
_SPARSE = b"S"
_WITHOUT_CONTENT = b"123456"  # links, devices, folders, pipes: their size is not followed by bytes
_HARD_LINK = b"1"
DEAD_LINK, NO_FILE, SPARSE = "links that lead to no file", "entries that are no files", "sparse files of a tar"
_LINKS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    _SPARSE: "sparse",
}
_ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")
# The characters of the names in the official archives, and a few more.
_ALLOWED = re.compile(r"[A-Za-z0-9 _.,()'&+=@#!%~\[\]{}/-]+")

ReadAt = Callable[[int, int], bytes]  # (position, length) -> at most that many bytes


class Member(NamedTuple):
    """A regular file: ``size`` bytes from the absolute position ``offset``."""

    name: str
    offset: int
    size: int


class _Entry(NamedTuple):
    """A header: ``kind`` is its type, ``link`` the name that a link leads to."""

    name: str
    kind: bytes
    offset: int
    size: int
    link: str


class _Extension(NamedTuple):
    """What the blocks before a member state about it; empty and -1 where they state nothing."""

    name: str
    size: int
    link: str
    kind: bytes = b""


_NO_EXTENSION = _Extension("", -1, "")


def read_members(read_at: ReadAt, where: str, start: int, end: int) -> list[Member]:
    """Returns the regular files of an official tar in ``[start, end)`` of its container, in order, without hidden ones.

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
    for entry in _read_entries(read_at, where, start, end, appended=False):
        if entry.kind not in _REGULAR:
            what = _LINKS.get(entry.kind, f"of the unknown type {entry.kind!r}")
            raise DataError(f"{where}: {entry.name!r} is {what}; only files and folders are supported")
        if name := _official_name(entry.name, where):
            if name in seen:
                raise DataError(f"{where} contains {name} twice, which no official archive does")
            seen.add(name)
            members.append(Member(name, entry.offset, entry.size))
    return members


def read_own_members(
    read_at: ReadAt, where: str, start: int, end: int
) -> tuple[list[Member], tuple[tuple[str, str], ...]]:
    """Returns the files of a tar that a user has made, and name and reason of each entry that is no file.

    Any name is accepted that does not lead out of the archive. As ``tar`` does, the last of several members of one name
    counts, and a link is the file that it names. A backslash separates folders if no name contains a slash.

    Args:
        read_at: Reader of the container.
        where: Name of the tar, for messages.
        start: Position of the first header.
        end: Position after the last byte.

    Raises:
        DataError: The tar is damaged or truncated, or a name leads out of it.
    """
    entries = list(_read_entries(read_at, where, start, end, appended=True))
    separator = "/" if any("/" in entry.name for entry in entries) else "\\"
    members: dict[str, Member] = {}
    links: dict[str, str] = {}
    skipped: list[tuple[str, str]] = []
    for entry in entries:
        name = _own_name(entry.name, separator, where)
        if entry.kind in _REGULAR and not entry.name.endswith(separator):  # zip marks a folder by its name only
            members[name] = Member(name, entry.offset, entry.size)
        elif entry.kind == b"1" and (target := members.get(_own_name(entry.link, separator, where))):
            members[name] = target._replace(name=name)
        elif entry.kind == b"2":
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.link))
        elif entry.kind not in _REGULAR and entry.kind not in _OF_BACKUPS:
            skipped.append((name, {b"1": DEAD_LINK, _SPARSE: SPARSE}.get(entry.kind, NO_FILE)))
    folders = {folder for name in members for folder in _parents(name)}
    for name in links:
        linked = _follow(name, links, members, folders)
        if len(members) + len(linked) > MAX_MEMBERS:  # links to folders of links multiply
            raise DataError(f"{where} contains more than {MAX_MEMBERS} files")
        members |= {member.name: member for member in linked}
        folders |= {folder for member in linked for folder in _parents(member.name)}
        if not linked:
            skipped.append((name, DEAD_LINK))
    return list(members.values()), tuple(skipped)


def _parents(name: str) -> list[str]:
    return [name[:position] for position, character in enumerate(name) if character == "/"]


def _follow(
    name: str, links: Mapping[str, str], members: Mapping[str, Member], folders: Collection[str]
) -> list[Member]:
    """Returns the files that a symbolic link leads to, by way of others too: one, or those of a folder."""
    path = name
    for _ in range(_MAX_LINKS):
        if path not in links:
            break
        path = links[path]
    if path in members:
        return [members[path]._replace(name=name)]
    if path not in folders:
        return []
    return [m._replace(name=name + m.name[len(path) :]) for m in members.values() if m.name.startswith(f"{path}/")]


def iterate_members(read_at: ReadAt, where: str, start: int, end: int) -> Iterator[Member]:
    """Yields the regular files of a tar that a user has made, in order, those of one name too; skips all else.

    A hard link is the file before it that it names. What precedes a damage is yielded before the error is raised.
    Arguments and errors are those of ``read_own_members``.
    """
    places: dict[str, tuple[int, int]] = {}
    for entry in _read_entries(read_at, where, start, end, appended=True):
        name = _own_name(entry.name, "/", where)
        place = (entry.offset, entry.size) if entry.kind in _REGULAR else None
        if entry.kind == _HARD_LINK:
            place = places.get(_own_name(entry.link, "/", where))
        if place and name:
            places[name] = place
            yield Member(name, *place)


def describe_escaped(names: Iterable[str]) -> str:
    """Returns a line about names that are not UTF-8, whose bytes are written in hexadecimal; empty for none."""
    escaped = [name for name in names if _ESCAPED.search(name)]
    if not escaped:
        return ""
    return f"{len(escaped):,} names are not UTF-8, and their bytes are written as in {min(escaped)}"


def is_header(block: bytes) -> bool:
    """Returns whether a block is the header of a member, by its checksum."""
    try:
        return len(block) == BLOCK and _checksum(block) == int(block[148:156].strip(b"\0 "), 8)
    except ValueError:
        return False


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[148:156]) + 256


def _read_entries(read_at: ReadAt, where: str, start: int, end: int, *, appended: bool) -> Iterator[_Entry]:
    """Yields all entries except folders, with long names, links and sizes resolved; checks the structure of the tar.

    With ``appended``, a tar that is appended to another, as by ``cat``, continues it.
    """
    position, count, long = start, 0, _NO_EXTENSION
    while True:
        header = read_at(position, BLOCK) if position + BLOCK <= end else b""
        if header == _ZEROS:
            position = _skip_zeros(read_at, position, end) if appended else end
            if position == end:
                return
            if not is_header(read_at(position, BLOCK)):
                raise DataError(f"{where} ends before byte {position} of {end}, and what follows is no tar")
            continue
        if len(header) < BLOCK:
            raise DataError(f"{where} is truncated: no end marker, and no header at byte {position} of {end}")
        size, kind = _read_size(header, where, position), header[156:157]
        if long.size >= 0 and kind not in _EXTENSIONS:
            size = long.size
        position += BLOCK
        if kind in _WITHOUT_CONTENT:
            size = 0
        if position + size > end:
            raise DataError(f"{where} is truncated: a member extends to byte {position + size} of {end}")
        if kind in _EXTENSIONS:
            long = _read_extension(kind, read_at, where, position, size, long)
        else:
            link = header[157:257].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
            if kind != b"5":
                count += 1
                if count > MAX_MEMBERS:
                    raise DataError(f"{where} contains more than {MAX_MEMBERS} files")
                yield _Entry(long.name or _name(header), long.kind or kind, position, size, long.link or link)
            long = _NO_EXTENSION
        position += -(-size // BLOCK) * BLOCK


def _skip_zeros(read_at: ReadAt, position: int, end: int) -> int:
    """Returns the position of the next block that is not zero, or ``end``."""
    while position < end:
        data = read_at(position, min(_SKIPPED, end - position))
        if rest := data.lstrip(b"\0"):
            return position + (len(data) - len(rest)) // BLOCK * BLOCK
        position += max(1, len(data))
    return end


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
    if size < 0 or _checksum(header) != stated:
        raise DataError(f"{where}: no tar header at byte {position}; is it a complete tar?")
    return size


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU tar uses another magic, and this field otherwise
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "backslashreplace")


def _read_extension(
    kind: bytes, read_at: ReadAt, where: str, position: int, size: int, before: _Extension
) -> _Extension:
    """Returns what a GNU or PAX block states about the next member, added to what the blocks before it state."""
    if size > _MAX_EXTENSION:
        raise DataError(f"{where}: {size} bytes of names at byte {position}, more than {_MAX_EXTENSION}")
    data = read_at(position, size)
    if kind in b"LK":
        text = data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
        return before._replace(name=text) if kind == b"L" else before._replace(link=text)
    records = _pax_records(data, where, position)
    if kind == b"g":
        if records.keys() & {"path", "size"}:
            raise DataError(
                f"{where}: a global path or size at byte {position}; only those of single members are supported"
            )
        return before
    stated = records.get("size", "-1")
    if not re.fullmatch(r"-1|[0-9]{1,15}", stated):
        raise DataError(f"{where}: invalid size {stated!r} at byte {position}")
    return _Extension(
        records.get("GNU.sparse.name", records.get("path", before.name)),
        int(stated) if int(stated) >= 0 else before.size,
        records.get("linkpath", before.link),
        _SPARSE if any(key.startswith("GNU.sparse") for key in records) else before.kind,
    )


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


def _official_name(name: str, where: str) -> str:
    """Returns the name without a leading ``./``; empty for files to ignore: hidden ones and macOS resource forks.

    Raises:
        DataError: The name is absolute, outside the archive, or has characters that official names do not have.
    """
    while name.startswith("./"):
        name = name[2:]
    _refuse_outside(name, where)
    if name.startswith((".", "__MACOSX/")) or "/." in name:
        return ""
    if len(name) > 1024 or not _ALLOWED.fullmatch(name):
        raise DataError(f"{where}: no official archive has a name like {name[:200]!r}")
    return name


def _own_name(name: str, separator: str, where: str) -> str:
    """Returns the name with ``/`` between folders and without empty parts; raises DataError if it leads out.

    Of an absolute name, as ``tar -P`` writes it, the first ``/`` is removed, as ``tar`` does where it extracts.
    """
    path = name.replace(separator, "/")
    _refuse_outside(path.lstrip("/"), where)
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _refuse_outside(name: str, where: str) -> None:
    if name.startswith("/") or "/../" in f"/{name}/":
        raise DataError(f"{where}: {name!r} is outside the archive")
