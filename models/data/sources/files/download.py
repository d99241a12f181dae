"""Downloads files from public addresses; resumes interrupted downloads and keeps only complete files."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from infra.errors import ConfigError, DataError, NotFoundError, TransientError
from infra.store import files

Say = Callable[[str], None]
TRIES = 6  # consecutive attempts without a new byte
_CHUNK_BYTES = 2**20
_TIMEOUT_S = 60.0
_SAY_EVERY_S = 5.0


class _BrokenError(Exception):
    """The connection broke or the server is busy, so a retry may help. Private to this module."""


@dataclass(frozen=True)
class Download:
    """One published file: its URL, and its md5 if one is published, which detects damage but not malice."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """Name of the local file."""
        return self.url.rpartition("/")[2]


def fetch(remote: Download, folder: Path, say: Say, wait: Callable[[float], None] = time.sleep) -> Path:
    """Downloads one file into ``folder``, unless it is there.

    Args:
        remote: The file.
        folder: Folder that exists.
        say: Callback for progress lines.
        wait: Function that sleeps between attempts.

    Raises:
        ConfigError: The server refuses the request, or the folder cannot be written.
        DataError: The file does not have its published md5.
        NotFoundError: The address is dead.
        TransientError: The server does not respond; the same call resumes the download.
    """
    path, partial = folder / remote.name, folder / f"{remote.name}.part"
    if path.exists():
        _require_md5(path, remote, "delete it and start again")
        say(f"{path} exists")
        return path
    failures = 0
    while True:
        before = _size(partial)
        try:
            _resume(remote.url, partial, say)
            break
        except _BrokenError as error:
            failures = 1 if _size(partial) > before else failures + 1
            if failures == TRIES:
                kept = f"{_size(partial):,} bytes are kept; the same command resumes"
                raise TransientError(f"{remote.url}: {error} after {TRIES} attempts; {kept}") from error
            wait(min(2.0**failures, 10.0))
    try:
        _require_md5(partial, remote, "start again")
    except DataError:
        partial.unlink()
        raise
    with files.errors(path):
        partial.replace(path)
    say(f"{path}: {path.stat().st_size:,} bytes" + (", md5 as published" if remote.md5 else ""))
    return path


def exists(url: str) -> bool:
    """Whether a server has a file; raises ConfigError for any other refusal, TransientError if it does not respond."""
    request = urllib.request.Request(url, headers={"User-Agent": "effnet"})  # noqa: S310 - the opener knows http(s) only
    try:
        response = _open(request, Path(), 0)
    except NotFoundError:
        return False
    except _BrokenError as error:
        raise TransientError(f"{url}: {error}") from error
    if response is not None:
        response.close()
    return True


def _resume(url: str, partial: Path, say: Say) -> None:
    """Downloads the missing bytes of ``partial``; returns when it is complete."""
    have = _size(partial)
    request = urllib.request.Request(url, headers={"User-Agent": "effnet"})  # noqa: S310 - the opener knows http(s) only
    if have:
        request.add_header("Range", f"bytes={have}-")
    response = _open(request, partial, have)
    if response is None:
        return
    with response:
        is_resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not is_resumed:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        with files.errors(partial), os.fdopen(files.open_ours(partial, 0o666), "r+b") as out:
            out.truncate(have)  # 0 if the server restarts from the beginning
            out.seek(have)
            received = have + _copy(response, out, url, have, total, say)
    if total is not None and received < total:
        raise _BrokenError(f"the connection ended after {received:,} of {total:,} bytes")


def _open(request: urllib.request.Request, partial: Path, have: int) -> http.client.HTTPResponse | None:
    """Returns the server's response; None if ``partial`` is already complete."""
    url = request.full_url
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=_TIMEOUT_S)
        return response
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
                return None
            if error.code == 416:
                partial.unlink()
                raise _BrokenError("the file on the server is shorter now") from error
            if error.code == 429 or error.code >= 500:
                raise _BrokenError(f"the server responds {error.code} {error.reason}") from error
            kind = NotFoundError if error.code in (404, 410) else ConfigError
            raise kind(f"{url}: the server responds {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


def _copy(response: http.client.HTTPResponse, out: BinaryIO, url: str, have: int, total: int | None, say: Say) -> int:
    """Copies the response to ``out``; returns the number of bytes. Errors of the connection become ``_BrokenError``."""
    written, reported = 0, time.monotonic()
    while True:
        try:
            chunk = response.read(_CHUNK_BYTES)
        except (http.client.HTTPException, OSError) as error:
            raise _BrokenError(f"the connection broke: {error}") from error
        if not chunk:
            return written
        out.write(chunk)
        written += len(chunk)
        if time.monotonic() - reported > _SAY_EVERY_S:
            reported = time.monotonic()
            of = f" of {total / 1e6:,.0f} MB ({(have + written) / total:.0%})" if total else " MB"
            say(f"{url.rpartition('/')[2]}: {(have + written) / 1e6:,.0f}{of}")


def _opener() -> urllib.request.OpenerDirector:
    """Builds an opener restricted to http and https, including after redirects."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _require_md5(path: Path, remote: Download, remedy: str) -> None:
    if remote.md5 is None:
        return
    with files.errors(path), path.open("rb") as stream:
        actual = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if actual != remote.md5:
        raise DataError(f"{path} has md5 {actual}, the published md5 of {remote.url} is {remote.md5}; {remedy}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
