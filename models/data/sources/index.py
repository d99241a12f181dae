"""Index of a source in the object store: its listing, and where each image is in the archives.

The order is the same on every machine. The index of 155 GB of archives takes long to build, so it is saved once and
loaded by the other machines.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf import schema
from conf.text import logger
from infra import store
from infra.errors import DataError, NotFoundError
from models.data.sources import catalog, listing
from models.data.sources.class_file import read_class_names
from models.data.sources.files.container import Container, join_parts, locate_uri
from models.data.sources.files.reader import OWN_FILE, Reader
from models.data.sources.listing import Source
from models.data.sources.published import cifar
from models.data.sources.wds.addresses import find_shards

FORMAT = "effnet-source/2"
# [N] columns of a saved index and their dtypes; None: byte strings of any length.
_COLUMNS: dict[str, str | None] = {
    "labels": "<i4",
    "split": "|i1",
    "names": None,
    "sizes": "<i8",
    "container": "<i4",
    "offsets": "<i8",
    "read_sizes": "<i8",
    "paths": None,
    "content": "<u8",
}
_OPTIONAL = ("paths", "content")  # columns that may be empty
_LOOKUPS_AT_ONCE = 16
# What numpy and zipfile raise on a damaged .npz, and the reading of its content.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
log = logger()


def save(source: Source, uri: str) -> None:
    """Writes the index of ``source`` as ``.npz``, for ``load`` on any machine with the same data."""
    png = isinstance(source.read, cifar.PngReader)
    reader = source.read.pixels if isinstance(source.read, cifar.PngReader) else source.read
    about: dict[str, Any] = {
        "format": FORMAT,
        "classes": source.classes,
        "own_val": source.own_val,
        "digest": source.digest,
        "missing": source.missing,
        "crop_bottom": source.crop_bottom,
        "unused": source.unused,
        "class_differences": source.class_differences,
        "duplicates": source.duplicates,
        "png": png,
    }
    arrays: dict[str, NDArray[Any]] = {
        "labels": source.labels,
        "split": source.split,
        "names": source.names,
        "sizes": source.sizes,
    }
    if isinstance(reader, Reader):
        about["containers"] = {name: Container(join_parts(reader.root, name)).size for name in reader.containers}
        arrays |= {
            "container": reader.container,
            "offsets": reader.offsets,
            "read_sizes": reader.sizes,
            "paths": reader.paths,
            "content": np.zeros(0, "<u8") if source.content is None else source.content,
        }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    store.write(uri, buffer.getvalue())


def load(data: schema.Data, uri: str) -> Source:
    """Loads the source that ``save`` wrote; images are read from ``data.path`` of this machine.

    Raises:
        NotFoundError: ``uri`` does not exist, or an archive is missing from ``data.path``.
        DataError: The object is not an index, or the local data differ from those indexed.
    """
    try:
        with np.load(io.BytesIO(store.read(uri)), allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            columns = {name: arrays[name] for name in _COLUMNS if name in arrays}
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}")
        if "containers" not in about:  # the images are part of an installed package
            return _reopen(data, uri, about["digest"])
        _check(columns, len(about["containers"]))
    except DAMAGE as error:
        raise DataError(f"{uri} is not an index of a source: {error}; delete it and shard again") from error
    root = listing.root_of(data, catalog.find(data.source))
    for name, size in about["containers"].items():
        if (actual := Container(join_parts(root, name)).size) != size:
            raise DataError(f"{join_parts(root, name)} has {actual} bytes, the index {uri} states {size}")
    reader = Reader(
        root,
        tuple(about["containers"]),
        columns["container"],
        columns["offsets"],
        columns["read_sizes"],
        columns["paths"],
    )
    return Source(
        tuple(about["classes"]),
        columns["labels"],
        columns["split"],
        about["own_val"],
        columns["names"],
        columns["sizes"],
        cifar.PngReader(reader) if about["png"] else reader,
        about["digest"],
        tuple(about["missing"]),
        about["crop_bottom"],
        columns["content"] if len(columns["content"]) else None,
        tuple(about.get("unused", ())),  # absent in an index of an earlier version
        tuple(about.get("class_differences", ())),
        tuple(about.get("duplicates", ())),
    )


def open_kept(data: schema.Data, folder: str, open_source: Callable[[schema.Data], Source]) -> Source:
    """Opens tars of others, by the index of an earlier command if none was written since: none is read.

    Args:
        data: Data settings, with ``data.source=webdataset``.
        folder: ``STORAGE/data/NAME``; an index in its folder ``tars`` replaces the one before.
        open_source: Function that reads the tars.

    Raises:
        EffnetError: The errors of ``open_source``.
    """
    uri = store.join(folder, "tars", f"{digest_tars(data)}.npz")
    try:
        source = load(data, uri)
    except NotFoundError:
        source = open_source(data)
        before = list(store.list_uris(store.join(folder, "tars")))
        if store.join(folder, "tars", f"{digest_tars(data)}.npz") == uri:  # else a tar was written meanwhile
            save(source, uri)
            for old in before:
                store.delete(old)
        return source
    log.info("%s: no tar was written since the last command, which indexed %s samples", data.name, len(source.labels))
    for line in (*source.missing, *source.class_differences, *source.unused, *source.duplicates):
        log.warning("%s: %s", data.name, line)
    return source


def forget(folder: str) -> None:
    """Deletes the indices that ``open_kept`` opens; ``folder`` as there."""
    for uri in store.list_uris(store.join(folder, "tars")):
        store.delete(uri)


def digest_tars(data: schema.Data) -> str:
    """Returns the digest of what the index of tars depends on: their addresses, sizes and times, and the settings."""
    shards = find_shards(data)

    def describe(name: str) -> tuple[str, int, float, str]:
        uri = locate_uri(join_parts(shards.root, name))
        try:
            entry = store.find_entry(uri)
        except NotFoundError:
            return uri, -1, 0.0, ""
        return uri, entry.size, entry.modified, entry.etag  # an object store tells the time in whole seconds

    with ThreadPoolExecutor(_LOOKUPS_AT_ONCE) as pool:
        tars = list(pool.map(describe, shards.parts))
    names = "" if data.class_file is None else read_class_names(data.class_file, "data.class_file")
    settings = (data.label_field, names, data.allow_partial, data.shards, data.convert)
    stated = [FORMAT, tars, list(shards.parts.values()), *settings, *shards.others]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]


def load_content(uri: str) -> tuple[tuple[str, ...], NDArray[np.int32], NDArray[np.uint64]]:
    """Loads class names, labels and content digests of the images of an index, without access to the images.

    Raises:
        DataError: The object is not an index of a source with content.
    """
    with _open_arrays(uri) as arrays:
        labels, content = arrays["labels"], arrays["content"]
        classes = tuple(map(str, json.loads(arrays["about"].tobytes())["classes"]))
        if labels.dtype != np.dtype("<i4") or content.dtype != np.dtype("<u8") or labels.shape != content.shape:
            raise ValueError(
                f"{labels.dtype}{list(labels.shape)} labels, {content.dtype}{list(content.shape)} contents"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise ValueError(f"a label that is none of {len(classes)} classes")
    return classes, labels, content


def load_places(uri: str) -> tuple[list[bytes], NDArray[np.int8], bool]:
    """Loads names, ``split`` and ``own_val`` of a source from its index, in the order of ``load_content``.

    Raises:
        DataError: The object is not an index of a source.
    """
    with _open_arrays(uri) as arrays:
        names: list[bytes] = arrays["names"].tolist()
        split, own_val = arrays["split"], bool(json.loads(arrays["about"].tobytes())["own_val"])
    return names, split, own_val


@contextmanager
def _open_arrays(uri: str) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Opens an index; whatever is wrong with its content is a DataError."""
    try:
        with np.load(io.BytesIO(store.read(uri)), allow_pickle=False) as arrays:
            yield arrays
    except DAMAGE as error:
        raise DataError(f"{uri} is not an index of a source: {error}; shard again with data.append=false") from error


def _reopen(data: schema.Data, uri: str, digest: str) -> Source:
    source = catalog.open_source(data)
    if source.digest != digest:
        raise DataError(f"{data.source} has digest {source.digest[:12]}..., the index {uri} states {digest[:12]}...")
    return source


def _check(columns: Mapping[str, NDArray[Any]], containers: int) -> None:
    """Rejects an index that would read outside the source or crash sharding: the store is untrusted."""
    count = len(columns["labels"])
    for name, kind in _COLUMNS.items():
        column = columns[name]
        right_kind = column.dtype.kind == "S" if kind is None else column.dtype == np.dtype(kind)
        if not right_kind or column.ndim != 1 or len(column) not in (count, 0 if name in _OPTIONAL else count):
            raise ValueError(f"column {name} is {column.dtype}{list(column.shape)}")
    container, paths = columns["container"], columns["paths"]
    loose = container == OWN_FILE
    if np.any(container >= containers) or np.any(container < OWN_FILE) or (np.any(loose) and len(paths) != count):
        raise ValueError("an image is in an archive that is not listed")
    around = np.char.add(np.char.add(b"/", paths[loose] if len(paths) else paths), b"/")
    if np.any(np.char.find(around, b"/../") >= 0) or np.any(np.char.startswith(around, b"//")):
        raise ValueError("a path outside the folder")
    if min(int(columns[name].min(initial=0)) for name in ("offsets", "read_sizes")) < 0:
        raise ValueError("a negative offset or size")
