"""The manifest: the single source of truth about a data set in the object store, written last.

``manifest.json`` lists the classes, the shards with size and BLAKE3, and the excluded images.
``samples.npy`` beside it holds one row per sample: its position in the shard, its label, its size in pixels. The
table is binary because ImageNet's would take seconds to parse as JSON. With both objects a reader can fetch any
sample with one range request and verify any shard before using it.

Three checksums serve three purposes. The sha256 of the manifest identifies the data: jobs are keyed by it, and the
manifest holds the sha256 of the table. BLAKE3 of a shard protects against tampering in the store or on a plain http
connection as well as sha256 does, in a quarter of the time (16 us for 110 kB against 65, Intel Xeon with SHA
instructions). The xxh3 of a sample detects corruption only, not tampering: it covers the cache on disk, whose shards
were verified on arrival.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from conf.text import did_you_mean
from infra import store
from infra.errors import ConfigError, DataError

FORMAT = "effnet-manifest/3"
SPLITS = ("train", "minival", "val")
TABLE = np.dtype(
    [("offset", "<i8"), ("size", "<i4"), ("label", "<i4"), ("width", "<u2"), ("height", "<u2"), ("xxh3", "<u8")]
)
# Newer than stored manifests: not written if empty, so that digests stay.
_LATER = ("unused", "class_differences", "duplicates")
_MAX_BYTES = 2**62  # no shard has as many, and differences of such numbers have 64 bits
_NAMED_REMARKS = 4  # besides the first, in a message
_SHARD_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}\.tar")
_ADDRESS = re.compile(r"s3://[^/]+/.|file:///.")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """One tar file of samples, or those samples of a foreign tar that belong to one split.

    Attributes:
        name: Name of the shard; that of its file beside the manifest, unless it has an address.
        split: One of ``SPLITS``.
        samples: Number of samples.
        bytes: Size of the tar.
        blake3: Digest of the tar.
        address: URI of a tar that is read in place (``in_place.py``); empty for a shard beside the manifest.
    """

    name: str
    split: str
    samples: int
    bytes: int
    blake3: str
    address: str = ""


@dataclass(frozen=True)
class ImageNote:
    """A remark on an image: why it was excluded, or how an included one differs from a plain RGB JPEG (``what``)."""

    name: str
    split: str
    what: str


def describe_notes(notes: Sequence[ImageNote]) -> str:
    """Returns the first remark, and the number of images and the first one of each other remark.

    Remarks that differ by numbers are one. At least one note is needed.
    """
    groups: dict[str, list[ImageNote]] = {}
    for note in notes:
        groups.setdefault(re.sub(r"\d+", "#", note.what), []).append(note)
    first, *others = groups.values()
    others.sort(key=len, reverse=True)
    lines = [f"{len(some):,} are as {some[0].name}: {some[0].what}" for some in others[:_NAMED_REMARKS]]
    rest = sum(map(len, others[_NAMED_REMARKS:]))
    lines += [f"{rest:,} have other faults"] if rest else []
    return "; ".join([f"the first is {first[0].name}: {first[0].what}", *lines])


@dataclass(frozen=True)
class Manifest:
    """A sharded data set.

    Attributes:
        name: Name of the data set.
        classes: Class names by label.
        source_digest: The sha256 that identifies the source.
        encoding: ``original``, or ``max_side=N`` where images were re-encoded.
        shards: The shards in writing order.
        table: ``[samples]`` of ``TABLE``; rows follow the shard order.
        quarantine: Source images that do not decode and were excluded.
        unusual: Images in the shards that need the slow decoder: CMYK, PNG, ...
        missing: One line per official count that the source does not reach.
        unused: One line per reason for which files of the source are no samples, with their number.
        class_differences: One line per split of the source that lacks classes which another split has.
        duplicates: One line if equal images are in several classes, and one per split that has images of train.
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
    unused: tuple[str, ...] = ()
    class_differences: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()

    def samples(self, split: str) -> int:
        """Returns the number of samples in a split, or in several joined by ``+``."""
        return sum(shard.samples for shard in self.shards if shard.split in split.split("+"))


def shard_uri(root_uri: str, shard: Shard) -> str:
    """Returns the URI of the tar of a shard; ``root_uri`` is the folder of the manifest."""
    return shard.address or store.join(root_uri, shard.name)


def shard_fields(shard: Shard) -> dict[str, str | int]:
    """Returns a shard as it is stored: an empty address is omitted, so that digests of earlier manifests stay."""
    return {key: value for key, value in asdict(shard).items() if key != "address" or value}


def class_counts(manifest: Manifest, split: str) -> NDArray[np.int64]:
    """Counts the images per class in a split, or in several joined by ``+``; shape ``[classes]``."""
    rows = Samples(manifest, split.split("+")).rows
    return np.bincount(rows["label"], minlength=len(manifest.classes)).astype(np.int64)


class Samples:
    """Samples of the given splits by id; ids start at 0 and follow the manifest order of the shards.

    Attributes:
        shards: Shards of the splits, in order.
        first_id: ``[shards + 1]``; shard i holds the ids ``[first_id[i], first_id[i + 1])``.
        rows: ``[samples]`` of ``TABLE``.
    """

    def __init__(self, manifest: Manifest, splits: Sequence[str]) -> None:
        bounds = np.concatenate([[0], np.cumsum([s.samples for s in manifest.shards])]).astype(np.int64)
        positions = [i for i, shard in enumerate(manifest.shards) if shard.split in splits]
        self.shards = [manifest.shards[i] for i in positions]
        self.first_id = np.concatenate([[0], np.cumsum([s.samples for s in self.shards])]).astype(np.int64)
        parts = [manifest.table[bounds[i] : bounds[i + 1]] for i in positions]
        self.rows: NDArray[np.void] = np.concatenate(parts) if parts else np.zeros(0, TABLE)

    def __len__(self) -> int:
        return len(self.rows)

    def shard_numbers(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the index into ``shards`` for each id."""
        return np.searchsorted(self.first_id, ids, side="right").astype(np.int64) - 1


def save(manifest: Manifest, root_uri: str) -> str:
    """Writes the table, then the manifest, which publishes the data set.

    Returns:
        The sha256 of manifest.json, which contains that of the table and so identifies the data.
    """
    uri = store.join(root_uri, "manifest.json")
    table, _, text = _encode(manifest)
    store.write(_table_uri(uri, ""), table)
    store.write(uri, text)
    return hashlib.sha256(text).hexdigest()


def save_version(manifest: Manifest, uri: str) -> str | None:
    """As ``save``, for a later version of a data set; returns None if another one has been written at ``uri``."""
    table, digest, text = _encode(manifest)
    store.write(_table_uri(uri, digest), table)
    if store.write(uri, text, if_absent=True) or store.read(uri) == text:  # the same, by another process or attempt
        return hashlib.sha256(text).hexdigest()
    return None


def _encode(manifest: Manifest) -> tuple[bytes, str, bytes]:
    """The table of a manifest, its sha256, and the manifest with that digest in place of the table."""
    buffer = io.BytesIO()
    np.save(buffer, manifest.table, allow_pickle=False)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    body = {"format": FORMAT, **asdict(manifest), "table": digest, "shards": list(map(shard_fields, manifest.shards))}
    for key in _LATER:
        if not body[key]:
            del body[key]
    return buffer.getvalue(), digest, json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _table_uri(uri: str, digest: str) -> str:
    """Uri of the table of the manifest ``uri``: that of a later version is named after its digest."""
    root, _, name = uri.rpartition("/")
    return store.join(root, "samples.npy" if name == "manifest.json" else f"samples-{digest[:16]}.npy")


def source_digest(uri: str) -> str:
    """Reads the digest of the source that a manifest was made of, without its table; errors are those of ``load``."""
    return str(_body(store.read(uri), uri)["source_digest"])


def load(uri: str) -> tuple[str, Manifest]:
    """Reads a manifest and its table from the store; returns the sha256 and the manifest.

    Raises:
        DataError: An object is damaged, or the two do not match.
    """
    text = store.read(uri)
    body = _body(text, uri)
    table_uri = _table_uri(uri, str(body["table"]))
    data = store.read(table_uri)
    if (actual := hashlib.sha256(data).hexdigest()) != (expected := str(body["table"])):
        raise DataError(
            f"{table_uri} has sha256 {actual[:12]}…, its manifest says {expected[:12]}…; "
            "delete manifest.json and shard again"
        )
    return hashlib.sha256(text).hexdigest(), _manifest(body, data, uri)


def load_verified(uri: str, sha256: str, leave_out: Sequence[str] = ()) -> Manifest:
    """Reads a manifest, verifies it against the digest of the job, and excludes the shards in ``leave_out``.

    Raises:
        ConfigError: A name in ``leave_out`` matches no shard.
        DataError: An object is damaged or has another digest.
    """
    digest, manifest = load(uri)
    if digest != sha256:
        raise DataError(f"{uri} has sha256 {digest[:12]}…, the job was made for {sha256[:12]}…; shard again")
    return exclude_shards(manifest, leave_out)


def exclude_shards(manifest: Manifest, leave_out: Sequence[str]) -> Manifest:
    """Returns the data set without the given shards; ``missing`` records the number of samples lost.

    Of a tar that is read in place, the shards of all splits are excluded together.

    Raises:
        ConfigError: A name in ``leave_out`` matches no shard.
    """
    if not leave_out:
        return manifest
    sizes = {shard.name: shard.samples for shard in manifest.shards}
    if unknown := [name for name in leave_out if name not in sizes]:
        hint = did_you_mean(unknown[0], sizes) or f"its shards are named as {next(iter(sizes), '')}"
        raise ConfigError(f"data.leave_out: {manifest.name} has no shard {unknown[0]!r}; {hint}")
    addresses = {shard.address for shard in manifest.shards if shard.name in leave_out} - {""}
    excluded = [shard.name in leave_out or shard.address in addresses for shard in manifest.shards]
    names = sorted(shard.name for shard, is_excluded in zip(manifest.shards, excluded, strict=True) if is_excluded)
    return replace(
        manifest,
        shards=tuple(shard for shard in manifest.shards if shard.name not in names),
        table=manifest.table[np.repeat(~np.array(excluded), list(sizes.values()))],
        missing=(*manifest.missing, *(f"{name} is excluded: {sizes[name]} samples" for name in names)),
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
    fields: dict[str, object] = body
    return fields


def _manifest(body: dict[str, object], table: bytes, where: str) -> Manifest:
    try:
        fields = {key: value for key, value in body.items() if key not in ("format", "table")}
        for key, kind in (("shards", Shard), ("quarantine", ImageNote), ("unusual", ImageNote)):
            fields[key] = tuple(kind(**entry) for entry in fields[key])  # type: ignore[attr-defined]
        fields["classes"] = tuple(fields["classes"])  # type: ignore[arg-type]
        for key in ("missing", *_LATER):
            fields[key] = tuple(map(str, fields.get(key, ())))  # type: ignore[call-overload]
        rows = np.load(io.BytesIO(table), allow_pickle=False)
        manifest = Manifest(**fields, table=rows)  # type: ignore[arg-type]
        _check(manifest, where)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not a manifest: {error}") from error
    return manifest


def _check(manifest: Manifest, where: str) -> None:
    """Rejects names, sizes and rows that would make a reader leave its shards: the manifest is untrusted input."""
    texts = (manifest.name, manifest.source_digest, manifest.encoding, *manifest.classes)
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: its name, digest, encoding or a class is no text")
    if repeated := [name for name, count in Counter(shard.name for shard in manifest.shards).items() if count > 1]:
        raise DataError(f"{where}: shard {repeated[0]} is listed more than once")
    rows = manifest.table
    if rows.dtype != TABLE or rows.ndim != 1:
        raise DataError(f"{where}: its table is {rows.dtype}, {rows.ndim} dimensions; expected rows of {TABLE}")
    first = 0
    for shard in manifest.shards:
        if not _SHARD_NAME.fullmatch(shard.name) or shard.split not in SPLITS or not _DIGEST.fullmatch(shard.blake3):
            raise DataError(f"{where}: invalid shard name {shard.name!r} of split {shard.split!r}")
        if shard.address and (not _ADDRESS.match(shard.address) or "/../" in f"{shard.address}/"):
            raise DataError(f"{where}: invalid address {shard.address!r} of shard {shard.name}")
        if not all(type(number) is int and 0 <= number < _MAX_BYTES for number in (shard.samples, shard.bytes)):
            raise DataError(f"{where}: shard {shard.name} says {shard.samples!r} samples and {shard.bytes!r} bytes")
        part = rows[first : first + shard.samples]
        if len(part) != shard.samples:
            raise DataError(f"{where}: shard {shard.name} says {shard.samples} samples, its table holds {len(part)}")
        if (
            np.any(part["offset"] < 0)
            or np.any(part["size"] < 0)
            or np.any(part["offset"] > shard.bytes - part["size"].astype(np.int64))  # their sum may exceed 64 bits
        ):
            raise DataError(f"{where}: a sample of {shard.name} lies outside its {shard.bytes} bytes")
        if np.any(part["label"] < 0) or np.any(part["label"] >= len(manifest.classes)):
            raise DataError(f"{where}: a label of {shard.name} is outside the {len(manifest.classes)} classes")
        first += shard.samples
    if first != len(rows):
        raise DataError(f"{where}: {first} samples in its shards, {len(rows)} in its table")
