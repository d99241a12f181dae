"""Writing a source as WebDataset tars into the object store; resumable, byte-equal, manifest last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
import webdataset
from numpy.typing import NDArray

from conf import schema
from infra import store
from infra.errors import DataError
from models.data.manifest import SPLITS, Manifest, Shard, to_bytes
from models.data.sources import Source, open_source

LAYOUT_VERSION = 1  # raise it when the same source must give other shards


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
                data.samples_per_shard, data.seed)  # fmt: skip
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

    Where the source has its own val it stays as it is; minival is a seeded part of train, as in the paper
    (25,022 of 1,281,167), and is never trained on. ``data.limit`` takes the first of the shuffled whole.
    """
    rng = np.random.default_rng(data.seed)
    order = rng.permutation(len(source.labels))[: data.limit]
    if source.is_val is None:
        n_val = round(len(order) * data.val_share)
        val, rest = order[:n_val], order[n_val:]
    else:
        val, rest = order[source.is_val[order]], order[~source.is_val[order]]
    n_minival = round(len(rest) * data.minival_share)
    return dict(zip(SPLITS, (rest[n_minival:], rest[:n_minival], val), strict=True))


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
            shard = _write_shard(layout, source, number)
            store.write_json(_index_uri(layout, number), asdict(shard))
            written += 1
    return written


def write_manifest(layout: Plan, name: str) -> tuple[str, Manifest]:
    """Gathers the indices of all shards into the manifest; returns its sha256 and itself.

    Raises:
        DataError: a shard in the store has another size than its index says.
    """
    shards = [Shard(**store.read_json(_index_uri(layout, i))) for i in range(len(layout.names))]
    for shard in shards:
        found = store.size(store.join(layout.root, shard.name))
        if found != shard.bytes:
            raise DataError(f"{layout.root}/{shard.name} has {found} bytes, its index says {shard.bytes}")
    manifest = Manifest(name, list(layout.classes), layout.source_digest, shards)
    data = to_bytes(manifest)
    store.write(layout.manifest_uri, data)
    return hashlib.sha256(data).hexdigest(), manifest


def _index_uri(layout: Plan, number: int) -> str:
    return store.join(layout.root, "index", f"{layout.names[number]}.json")


def _write_shard(layout: Plan, source: Source, number: int) -> Shard:
    """Streams one tar to the store; image bytes are copied as they are, never encoded again."""
    offsets: list[int] = []
    sizes: list[int] = []
    labels: list[int] = []
    name = layout.names[number]
    with store.open_write(store.join(layout.root, name)) as stream:
        hashing = _HashingStream(stream)
        # mtime and owner are fixed, so that the same input gives the same bytes.
        with webdataset.TarWriter(hashing, mtime=0, user="effnet", group="effnet", encoder=False) as writer:
            for index in layout.members[number]:
                image, suffix = source.read(int(index))
                label = int(source.labels[index])
                writer.write({"__key__": f"{index:08d}", "cls": str(label).encode(), suffix: image})
                # Members go in alphabetic order, cls before jpg and png: the image is what was written last.
                offsets.append(int(writer.tarstream.offset) - -(-len(image) // 512) * 512)
                sizes.append(len(image))
                labels.append(label)
    return Shard(name, layout.splits[number], hashing.size, hashing.sha256.hexdigest(), offsets, sizes, labels)


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
