"""The manifest: the only truth about a data set in the object store, written last.

``manifest.json`` names the data set, its classes, its shards with size and BLAKE3, and what was left out of it.
``samples.npy`` beside it holds one row a sample: where it lies in its shard, its label, its size in pixels. A
binary table, because ImageNet's as JSON would take seconds to open. Whoever holds both can read any sample with
one range request and check any shard before using it.

Three checksums, each where it belongs. The manifest's own sha256 names the data: every job is made for it, and it
holds the sha256 of the table. A shard's BLAKE3 is as good against whoever can write into the store, or sits on a
plain http wire, as sha256 is, and takes a quarter of the time (16 us of 110 kB against 65, Intel Xeon with SHA
instructions). A sample's xxh3 protects against damage only, not against an adversary: it is for the disk of the
cache, below a shard that was verified when it came.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from infra import store
from infra.errors import ConfigError, DataError

FORMAT = "effnet-manifest/3"
SPLITS = ("train", "minival", "val")
TABLE = np.dtype(
    [("offset", "<i8"), ("size", "<i4"), ("label", "<i4"), ("width", "<u2"), ("height", "<u2"), ("xxh3", "<u8")]
)
_SHARD_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}\.tar")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """One tar."""

    name: str
    split: str
    samples: int
    bytes: int
    blake3: str


@dataclass(frozen=True)
class ImageNote:
    """An image that was left out (``what``: why), or that is in and no plain RGB JPEG (``what``: what it is)."""

    name: str
    split: str
    what: str


@dataclass(frozen=True)
class Manifest:
    """A data set.

    Attributes:
        name: of the data set.
        classes: names by label.
        source_digest: sha256 of what identifies the source.
        encoding: ``original``, or ``max_side=N`` where images were encoded again.
        shards: in writing order.
        table: ``[samples]`` of ``TABLE``; rows run over the shards in order.
        quarantine: images of the source that do not decode and are not in the shards.
        unusual: images in the shards that take the slow decoder: CMYK, PNG, ...
        missing: one line for each official count that the source does not reach.
    """

    name: str
    classes: tuple[str, ...]
    source_digest: str
    encoding: str
    shards: tuple[Shard, ...]
    table: NDArray[np.void] = field(compare=False)
    quarantine: tuple[ImageNote, ...] = ()
    unusual: tuple[ImageNote, ...] = ()
    missing: tuple[str, ...] = ()

    def samples(self, split: str) -> int:
        """Number of samples of a split; of several that are joined by ``+``."""
        return sum(shard.samples for shard in self.shards if shard.split in split.split("+"))


def class_counts(manifest: Manifest, split: str) -> NDArray[np.int64]:
    """``[classes]``: images of each class in a split; in several that are joined by ``+``."""
    rows = Samples(manifest, split.split("+")).rows
    return np.bincount(rows["label"], minlength=len(manifest.classes)).astype(np.int64)


class Samples:
    """The samples of some splits by id: ids run over their shards in manifest order, from 0.

    Attributes:
        shards: of the splits, in order.
        first_id: ``[shards + 1]``; shard i holds the ids from ``first_id[i]`` up to ``first_id[i + 1]``.
        rows: ``[samples]`` of ``TABLE``.
    """

    def __init__(self, manifest: Manifest, splits: Sequence[str]) -> None:
        bounds = np.concatenate([[0], np.cumsum([s.samples for s in manifest.shards])]).astype(np.int64)
        taken = [i for i, shard in enumerate(manifest.shards) if shard.split in splits]
        self.shards = [manifest.shards[i] for i in taken]
        self.first_id = np.concatenate([[0], np.cumsum([s.samples for s in self.shards])]).astype(np.int64)
        parts = [manifest.table[bounds[i] : bounds[i + 1]] for i in taken]
        self.rows: NDArray[np.void] = np.concatenate(parts) if parts else np.zeros(0, TABLE)

    def __len__(self) -> int:
        return len(self.rows)

    def shard_numbers(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each id the index into ``shards``."""
        return np.searchsorted(self.first_id, ids, side="right").astype(np.int64) - 1


def save(manifest: Manifest, root_uri: str) -> str:
    """Writes the table, then the manifest; from then on the data set exists.

    Returns:
        The sha256 of manifest.json, which holds that of the table: it names the data.
    """
    buffer = io.BytesIO()
    np.save(buffer, manifest.table, allow_pickle=False)
    store.write(store.join(root_uri, "samples.npy"), buffer.getvalue())
    body = {"format": FORMAT, **asdict(manifest), "table": hashlib.sha256(buffer.getvalue()).hexdigest()}
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    store.write(store.join(root_uri, "manifest.json"), text)
    return hashlib.sha256(text).hexdigest()


def load(uri: str) -> tuple[str, Manifest]:
    """Reads a manifest and its table from the store; returns its sha256 and itself.

    Raises:
        DataError: an object is damaged, or they do not fit each other.
    """
    text = store.read(uri)
    body = _body(text, uri)
    table_uri = store.join(uri.rpartition("/")[0], "samples.npy")
    data = store.read(table_uri)
    if (found := hashlib.sha256(data).hexdigest()) != (wanted := str(body["table"])):
        raise DataError(
            f"{table_uri} has sha256 {found[:12]}…, its manifest says {wanted[:12]}…; "
            "delete manifest.json and shard again"
        )
    return hashlib.sha256(text).hexdigest(), _manifest(body, data, uri)


def load_verified(uri: str, sha256: str, leave_out: Sequence[str] = ()) -> Manifest:
    """Reads a manifest and checks it against the digest that a job was given; without the shards of ``leave_out``.

    Raises:
        ConfigError: there is no shard of that name.
        DataError: an object is damaged or another one than was asked for.
    """
    found, manifest = load(uri)
    if found != sha256:
        raise DataError(f"{uri} has sha256 {found[:12]}…, the job was made for {sha256[:12]}…; shard again")
    return exclude_shards(manifest, leave_out)


def exclude_shards(manifest: Manifest, leave_out: Sequence[str]) -> Manifest:
    """The data set without some of its shards; ``missing`` says how many samples that costs.

    Raises:
        ConfigError: there is no shard of that name.
    """
    if not leave_out:
        return manifest
    sizes = {shard.name: shard.samples for shard in manifest.shards}
    if unknown := [name for name in leave_out if name not in sizes]:
        near = (difflib.get_close_matches(unknown[0], sizes, 1, 0.0) or [""])[0]
        raise ConfigError(f"data.leave_out: {manifest.name} has no shard {unknown[0]!r}; the nearest is {near}")
    stays = np.array([shard.name not in leave_out for shard in manifest.shards])
    return replace(
        manifest,
        shards=tuple(shard for shard in manifest.shards if shard.name not in leave_out),
        table=manifest.table[np.repeat(stays, list(sizes.values()))],
        missing=(*manifest.missing, *(f"{name} is left out: {sizes[name]} samples" for name in sorted(set(leave_out)))),
    )


def _body(text: bytes, where: str) -> dict[str, object]:
    try:
        body = json.loads(text)
        if body["format"] != FORMAT:
            raise DataError(f"{where}: format is {body['format']!r}, this version reads {FORMAT!r}; shard again")
        if not _DIGEST.fullmatch(body["table"]):
            raise DataError(f"{where}: the table's sha256 is {body['table']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where} is not a manifest: {error}") from error
    found: dict[str, object] = body
    return found


def _manifest(body: dict[str, object], table: bytes, where: str) -> Manifest:
    try:
        fields = {key: value for key, value in body.items() if key not in ("format", "table")}
        for key, kind in (("shards", Shard), ("quarantine", ImageNote), ("unusual", ImageNote)):
            fields[key] = tuple(kind(**each) for each in fields[key])  # type: ignore[attr-defined]
        fields["classes"] = tuple(fields["classes"])  # type: ignore[arg-type]
        fields["missing"] = tuple(fields["missing"])  # type: ignore[arg-type]
        rows = np.load(io.BytesIO(table), allow_pickle=False)
        manifest = Manifest(**fields, table=rows)  # type: ignore[arg-type]
        _check(manifest, where)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not a manifest: {error}") from error
    return manifest


def _check(manifest: Manifest, where: str) -> None:
    """Refuses what could lead a reader out of its shards: names, sizes and rows from outside are not trusted."""
    rows = manifest.table
    if rows.dtype != TABLE or rows.ndim != 1:
        raise DataError(f"{where}: its table is {rows.dtype}, {rows.ndim} dimensions; expected rows of {TABLE}")
    first = 0
    for shard in manifest.shards:
        if not _SHARD_NAME.fullmatch(shard.name) or shard.split not in SPLITS or not _DIGEST.fullmatch(shard.blake3):
            raise DataError(f"{where}: no shard can be called {shard.name!r} of {shard.split!r}")
        own = rows[first : first + shard.samples]
        if len(own) != shard.samples:
            raise DataError(f"{where}: shard {shard.name} says {shard.samples} samples, its table holds {len(own)}")
        if np.any(own["offset"] < 0) or np.any(own["size"] < 0) or np.any(own["offset"] + own["size"] > shard.bytes):
            raise DataError(f"{where}: a sample of {shard.name} lies outside its {shard.bytes} bytes")
        if np.any(own["label"] < 0) or np.any(own["label"] >= len(manifest.classes)):
            raise DataError(f"{where}: a label of {shard.name} is outside the {len(manifest.classes)} classes")
        first += shard.samples
    if first != len(rows):
        raise DataError(f"{where}: {first} samples in its shards, {len(rows)} in its table")
