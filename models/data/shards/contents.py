"""Digests of images that earlier commands have read, so that of a large folder only new and changed files are read.

``STORAGE/data/NAME/contents/PLACE.npz`` has the digest of each file below one ``data.path``, with the stamp that the
file had when it was listed (``models/data/sources/files/walk.py``); a file without a stamp has no entry. An image whose
content is another one than its digest says is refused when its shard is written, and the table is deleted (``forget``).
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
from numpy.typing import NDArray

from conf.text import logger
from infra import store
from infra.errors import NotFoundError
from models.data.sources import index, listing
from models.data.sources.files.reader import OWN_FILE, Reader
from models.data.sources.listing import Source

FORMAT = "effnet-contents/1"
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
    if not isinstance(reader, Reader) or len(reader.stamps) == 0 or np.any(reader.container != OWN_FILE):
        return listing.with_content(source)
    uri = store.join(_folder_of(folder), f"{hashlib.sha256(reader.root.encode()).hexdigest()[:16]}.npz")
    known = _look_up(_load(uri), reader.paths, reader.stamps)
    whole = listing.with_content(source, known)
    if whole.content is not None and len(known) < np.count_nonzero(reader.stamps):
        _save(uri, reader.paths, reader.stamps, whole.content)
    return whole


def forget(folder: str) -> None:
    """Deletes what is known of all places of a data set; ``folder`` as in ``add_contents``."""
    for uri in store.list_uris(_folder_of(folder)):
        store.delete(uri)


def _folder_of(folder: str) -> str:
    return store.join(folder, "contents")


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
