"""Digests of images that earlier commands have read, so that of a large folder only new and changed files are read.

``STORAGE/data/NAME/contents/PLACE.npz`` has the digest of each file below one ``data.path``, with the stamp of the
file when it was read: size and times, at an object store size, time and ETag. The stamp of a local file includes the
time at which its status changed last (ctime), which no program sets back. A file that was written shortly before it
was read has no entry, because another write in the same tick of the clock would leave its stamp as it is. An image
whose content is another one than its digest says is refused when its shard is written, and the table is deleted
(``forget``).
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from conf.text import logger
from infra import store
from infra.errors import NotFoundError
from models.data.sources import index, listing
from models.data.sources.files.container import join_parts
from models.data.sources.files.reader import OWN_FILE, Reader
from models.data.sources.listing import Source, content_digest

FORMAT = "effnet-contents/1"
RECENT_S = 3.0  # FAT stores times to two seconds, object stores to one
_NO_STAMP = 0
_LOOKUPS_AT_ONCE = 16
_BLOCK = 500  # files that a thread looks up at a time
log = logger()


def add_contents(source: Source, folder: str) -> Source:
    """Adds the digests of its images to a source, as ``listing.with_content``; reads only what is not known.

    Args:
        source: A source whose splits depend on the content of its images.
        folder: ``STORAGE/data/NAME``.

    Raises:
        DataError: The bytes of an image are missing.
        TransientError: An object store does not respond.
    """
    reader = source.read
    if not isinstance(reader, Reader) or len(reader.paths) == 0 or np.any(reader.container != OWN_FILE):
        return listing.with_content(source)
    uri = store.join(_folder_of(folder), f"{hashlib.sha256(reader.root.encode()).hexdigest()[:16]}.npz")
    stamps = _read_stamps(reader)  # before the images: what is written meanwhile has another stamp
    known = _look_up(_load(uri), reader.paths, stamps)
    whole = listing.with_content(source, known)
    if whole.content is not None and len(known) < np.count_nonzero(stamps):
        _save(uri, reader.paths, stamps, whole.content)
    return whole


def forget(folder: str) -> None:
    """Deletes what is known of all places of a data set; ``folder`` as in ``add_contents``."""
    for uri in store.list_uris(_folder_of(folder)):
        store.delete(uri)


def _folder_of(folder: str) -> str:
    return store.join(folder, "contents")


def _read_stamps(reader: Reader) -> NDArray[np.uint64]:
    """Returns the stamp of each file; ``_NO_STAMP`` of one that has changed lately, or is not there."""
    recent = time.time() - RECENT_S
    if reader.root.startswith("s3://"):
        by_uri = {
            entry.uri: _NO_STAMP if entry.modified > recent else _stamp(entry.size, entry.modified, entry.etag)
            for entry in store.list_entries(reader.root)
        }
        uris = (join_parts(reader.root, os.fsdecode(path)) for path in reader.paths.tolist())
        return np.fromiter((by_uri.get(uri, _NO_STAMP) for uri in uris), "<u8", len(reader.paths))

    root = os.fsencode(reader.root)

    def of_files(paths: list[bytes]) -> list[int]:
        return [_stamp_file(os.path.join(root, path), recent) for path in paths]  # noqa: PTH118 - a million of them

    paths = reader.paths.tolist()
    blocks = (paths[first : first + _BLOCK] for first in range(0, len(paths), _BLOCK))
    with ThreadPoolExecutor(_LOOKUPS_AT_ONCE) as pool:  # a file server answers each after a while
        return np.array([stamp for stamps in pool.map(of_files, blocks) for stamp in stamps], "<u8")


def _stamp_file(path: bytes, recent: float) -> int:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:  # reported when it is read
        return _NO_STAMP
    if max(status.st_mtime, status.st_ctime) > recent:
        return _NO_STAMP
    return _stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _stamp(*facts: object) -> int:
    return content_digest(repr(facts).encode()) | 1


def _look_up(
    table: dict[bytes, tuple[int, int]], paths: NDArray[np.bytes_], stamps: NDArray[np.uint64]
) -> dict[int, int]:
    """Returns the digests of the files that have their stamps still, by row."""
    known = {}
    for row, (path, stamp) in enumerate(zip(paths.tolist(), stamps.tolist(), strict=True)):
        of_file = table.get(path)
        if of_file is not None and of_file[0] == stamp:
            known[row] = of_file[1]
    return known


def _load(uri: str) -> dict[bytes, tuple[int, int]]:
    """Returns stamp and digest by path; empty if there is no table, or a damaged one, which the next one replaces."""
    try:
        with np.load(io.BytesIO(store.read(uri)), allow_pickle=False) as arrays:
            if str(arrays["format"]) != FORMAT:
                return {}
            columns = arrays["paths"], arrays["stamps"], arrays["contents"]
        if any(one.ndim != 1 for one in columns) or columns[0].dtype.kind != "S":
            return {}
        rows = zip(*(one.tolist() for one in columns), strict=True)
        return {path: (int(stamp), int(content)) for path, stamp, content in rows}
    except NotFoundError:
        return {}
    except index.DAMAGE as error:
        log.warning("%s is damaged (%s): all images are read again", uri, error)
        return {}


def _save(uri: str, paths: NDArray[np.bytes_], stamps: NDArray[np.uint64], content: NDArray[np.uint64]) -> None:
    rows = np.flatnonzero(stamps)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, format=np.array(FORMAT), paths=paths[rows], stamps=stamps[rows], contents=content[rows])
    store.write(uri, buffer.getvalue())
