"""The manifest: the only truth about a data set in the object store, written last.

One JSON object: data set, classes, splits, and per shard its name, bytes, sha256 and, as columns, each
sample's offset, size and label. Whoever holds the manifest can read any sample with one range request and
check any shard before using it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from infra import store
from infra.errors import DataError

FORMAT = "effnet-manifest/1"
SPLITS = ("train", "minival", "val")


@dataclass(frozen=True)
class Shard:
    """One tar: ``offsets[i]`` and ``sizes[i]`` bound the encoded image of sample i inside it."""

    name: str
    split: str
    bytes: int
    sha256: str
    offsets: list[int]
    sizes: list[int]
    labels: list[int]

    @property
    def samples(self) -> int:
        """Number of samples in the shard."""
        return len(self.labels)


@dataclass(frozen=True)
class Manifest:
    """A data set: classes by label, and its shards in writing order."""

    name: str
    classes: list[str]
    source_digest: str
    shards: list[Shard]

    def split(self, split: str) -> list[Shard]:
        """The shards of one split, in order."""
        return [shard for shard in self.shards if shard.split == split]

    def samples(self, split: str) -> int:
        """Number of samples of one split."""
        return sum(shard.samples for shard in self.split(split))


class Locator:
    """Sample id within a split -> (shard, offset, size, label), by arrays; ids run over the shards in order."""

    def __init__(self, shards: list[Shard]) -> None:
        self.shards = shards
        counts = [shard.samples for shard in shards]
        self.first_id = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.offsets = _concat([s.offsets for s in shards])
        self.sizes = _concat([s.sizes for s in shards])
        self.labels = _concat([s.labels for s in shards])

    def shard_of(self, sample_id: int) -> Shard:
        """The shard that holds a sample."""
        return self.shards[int(np.searchsorted(self.first_id, sample_id, side="right")) - 1]


def _concat(columns: list[list[int]]) -> NDArray[np.int64]:
    return np.concatenate([np.asarray(c, np.int64) for c in columns]) if columns else np.zeros(0, np.int64)


def to_bytes(manifest: Manifest) -> bytes:
    """Canonical JSON: the same manifest gives the same bytes, so its sha256 names the data."""
    body = {"format": FORMAT, **asdict(manifest)}
    for shard in body["shards"]:
        shard["samples"] = len(shard["labels"])
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def from_bytes(data: bytes, where: str) -> Manifest:
    """Parses a manifest.

    Raises:
        DataError: not a manifest of this format, or its columns disagree.
    """
    try:
        body = json.loads(data)
        if body["format"] != FORMAT:
            raise DataError(f"{where}: format is {body['format']!r}, this version reads {FORMAT!r}")
        shards = []
        for raw in body["shards"]:
            samples = raw.pop("samples")
            shard = Shard(**raw)
            if not len(shard.offsets) == len(shard.sizes) == len(shard.labels) == samples:
                raise DataError(f"{where}: shard {shard.name} has columns of different lengths")
            shards.append(shard)
        return Manifest(body["name"], body["classes"], body["source_digest"], shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not a manifest: {error}") from error


def load(uri: str) -> tuple[str, Manifest]:
    """Reads a manifest from the store; returns its sha256 and itself.

    Raises:
        DataError: the object is damaged.
    """
    data = store.read(uri)
    return hashlib.sha256(data).hexdigest(), from_bytes(data, uri)


def load_verified(uri: str, sha256: str) -> Manifest:
    """Reads a manifest and checks it against the digest that a job was given.

    Raises:
        DataError: the object is damaged or another one than was asked for.
    """
    found, manifest = load(uri)
    if found != sha256:
        raise DataError(f"{uri} has sha256 {found[:12]}…, the job was made for {sha256[:12]}…; shard again")
    return manifest
