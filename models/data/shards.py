"""Writing a source as WebDataset tars into the object store; resumable, byte-equal, manifest last."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
import webdataset
from numpy.typing import NDArray

from conf import schema
from infra import store
from infra.errors import DataError
from models.data import manifest as manifests
from models.data.listing import MINIVAL, TRAIN, VAL, Source
from models.data.manifest import SPLITS, TABLE, Manifest, Remark, Shard
from models.data.sources import open_source
from models.data.verify import Verdict, verdict

LAYOUT_VERSION = 2  # raise it when the same source must give other shards
VERIFY_THREADS = 2
AT_ONCE = 64  # images in memory while they are verified


@dataclass(frozen=True)
class Plan:
    """Which samples go into which shard; a pure function of the source and the settings.

    ``members[i]`` are source indices of shard i, already shuffled.
    """

    root: str  # uri of the folder in the store; its last part is the digest of what was asked
    classes: tuple[str, ...]
    source_digest: str
    names: list[str]
    splits: list[str]
    members: list[NDArray[np.int64]]

    @property
    def manifest_uri(self) -> str:
        """Where the manifest will be."""
        return store.join(self.root, "manifest.json")


def plan(data: schema.Data, storage: str) -> Plan:
    """Opens the source and lays out its shards: seeded split, seeded global shuffle, equal pieces.

    Args:
        data: source, split shares, shard size, seed.
        storage: root uri; the shards go to ``storage/data/NAME/DIGEST/``.

    Raises:
        ConfigError: the source is not there.
        DataError: a split would be empty.
    """
    source = open_source(data)
    settings = (LAYOUT_VERSION, source.digest, data.limit, data.val_share, data.minival_share,
                data.samples_per_shard, data.seed, data.verify_images)  # fmt: skip
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    names, splits, members = [], [], []
    for split, indices in split_indices(source, data).items():
        if len(indices) == 0:
            raise DataError(f"{data.name}: no samples left for split {split!r} of {len(source.labels)} in all")
        pieces = -(-len(indices) // data.samples_per_shard)
        for number, piece in enumerate(np.array_split(indices, pieces)):
            names.append(f"{split}-{number:05d}-of-{pieces:05d}.tar")
            splits.append(split)
            members.append(piece)
    root = store.join(storage, "data", data.name, digest)
    return Plan(root, source.classes, source.digest, names, splits, members)


def split_indices(source: Source, data: schema.Data) -> dict[str, NDArray[np.int64]]:
    """Shuffled source indices of train, minival and val.

    Where the source has official parts they stay as they are. Else minival is a seeded part of train, as in the
    paper (25,022 of 1,281,167), and is never trained on. ``data.limit`` takes the first of the shuffled whole.
    """
    rng = np.random.default_rng(data.seed)
    order = rng.permutation(len(source.labels))[: data.limit]
    if source.own_val:
        val, rest = order[source.split[order] == VAL], order[source.split[order] != VAL]
    else:
        n_val = round(len(order) * data.val_share)
        val, rest = order[:n_val], order[n_val:]
    if np.any(source.split == MINIVAL):
        minival, train = rest[source.split[rest] == MINIVAL], rest[source.split[rest] == TRAIN]
    else:
        n_minival = round(len(rest) * data.minival_share)
        minival, train = rest[:n_minival], rest[n_minival:]
    return dict(zip(SPLITS, (train, minival, val), strict=True))


def groups(plan: Plan, shards_per_task: int) -> list[list[int]]:
    """Shard numbers in groups, one group a task."""
    numbers = list(range(len(plan.names)))
    return [numbers[i : i + shards_per_task] for i in range(0, len(numbers), shards_per_task)]


def write_group(data: schema.Data, storage: str, numbers: Sequence[int]) -> int:
    """Writes the shards of one group that are not finished yet; returns how many it wrote.

    A shard is finished when its index object is there; the index is written after the shard.
    """
    layout = plan(data, storage)
    source = open_source(data)
    written = 0
    for number in numbers:
        if not store.exists(_index_uri(layout, number)):
            store.write_json(
                _index_uri(layout, number), _write_shard(layout, source, number, decode=data.verify_images)
            )
            written += 1
    return written


def write_manifest(layout: Plan, data: schema.Data) -> tuple[str, Manifest]:
    """Gathers the indices of all shards into the manifest; returns its sha256 and itself.

    Raises:
        DataError: a shard in the store has another size than its index says, or a split has lost all its images.
    """
    source = open_source(data)
    indices = [store.read_json(_index_uri(layout, number)) for number in range(len(layout.names))]
    shards = tuple(Shard(**index["shard"]) for index in indices)
    for shard in shards:
        found = store.size(store.join(layout.root, shard.name))
        if found != shard.bytes:
            raise DataError(f"{layout.root}/{shard.name} has {found} bytes, its index says {shard.bytes}")
    quarantine = tuple(Remark(**each) for index in indices for each in index["quarantine"])
    for split in SPLITS:
        if not any(shard.samples for shard in shards if shard.split == split):
            reason = next((each.what for each in quarantine if each.split == split), "no samples")
            raise DataError(f"{data.name}: no image of split {split!r} can be used; the first: {reason}")
    manifest = Manifest(
        name=data.name,
        classes=layout.classes,
        source_digest=layout.source_digest,
        encoding="original",
        shards=shards,
        table=np.array([tuple(row) for index in indices for row in index["rows"]], TABLE),
        quarantine=quarantine,
        unusual=tuple(Remark(**each) for index in indices for each in index["unusual"]),
        missing=source.missing,
    )
    return manifests.save(manifest, layout.root), manifest


def _index_uri(layout: Plan, number: int) -> str:
    return store.join(layout.root, "index", f"{layout.names[number]}.json")


def _write_shard(layout: Plan, source: Source, number: int, *, decode: bool) -> dict[str, Any]:
    """Streams one tar to the store and returns its index; image bytes are copied as they are."""
    name, split = layout.names[number], layout.splits[number]
    rows: list[tuple[int, ...]] = []
    quarantine: list[dict[str, str]] = []
    unusual: list[dict[str, str]] = []
    with store.open_write(store.join(layout.root, name)) as stream:
        hashing = _HashingStream(stream)
        # mtime and owner are fixed, so that the same input gives the same bytes.
        with webdataset.TarWriter(hashing, mtime=0, user="effnet", group="effnet", encoder=False) as writer:
            for index, image, found in _looked_at(source, layout.members[number], decode=decode):
                image_name = source.names[index].decode(errors="backslashreplace")
                if isinstance(found, str):
                    quarantine.append(asdict(Remark(image_name, split, found)))
                    continue
                if found.unusual:
                    unusual.append(asdict(Remark(image_name, split, found.unusual)))
                label = int(source.labels[index])
                writer.write({"__key__": f"{index:08d}", "cls": str(label).encode(), found.suffix: image})
                # Members go in alphabetic order, cls before jpg and png: the image is what was written last.
                offset = int(writer.tarstream.offset) - -(-len(image) // 512) * 512
                rows.append(
                    (offset, len(image), label, found.width, found.height - source.crop_bottom, zlib.crc32(image))
                )
    shard = Shard(name, split, len(rows), hashing.size, hashing.sha256.hexdigest())
    return {"shard": asdict(shard), "rows": rows, "quarantine": quarantine, "unusual": unusual}


def _looked_at(
    source: Source, members: NDArray[np.int64], *, decode: bool
) -> Iterator[tuple[int, bytes, Verdict | str]]:
    """Index, bytes, and what they are or why they are left out; in order, a bounded number at a time."""

    def look(index: int) -> tuple[int, bytes, Verdict | str]:
        image = source.read(index)
        try:
            return index, image, verdict(image, source.names[index].decode(errors="replace"), decode=decode)
        except DataError as error:
            return index, b"", str(error)

    with ThreadPoolExecutor(VERIFY_THREADS, thread_name_prefix="verify") as pool:
        for start in range(0, len(members), AT_ONCE):
            yield from pool.map(look, members[start : start + AT_ONCE].tolist())


class _HashingStream:
    """Counts and hashes what passes on its way to the store."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.size = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.size += len(data)
        self.stream.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing to do: the store sends parts when they are full."""
