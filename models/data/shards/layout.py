"""Which image goes into which shard: arithmetic on the source's index and the settings; no pixels in sight."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conf import schema
from infra import store
from infra.errors import DataError
from models.data.shards.manifest import SPLITS
from models.data.sources import catalog
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source

LAYOUT_VERSION = 4  # raise it when the same source must give other shards
_KEPT = 2  # plans in memory: every group of a set needs the same one


@dataclass(frozen=True)
class ShardLayout:
    """A pure function of the source and the settings.

    Attributes:
        data: the settings.
        source: of the images.
        root: uri of the folder in the store; its last part is the digest of what was asked.
        names: of the shards.
        splits: of each shard.
        members: source indices of each shard, already shuffled.
    """

    data: schema.Data
    source: Source
    root: str
    names: list[str]
    splits: list[str]
    members: list[NDArray[np.int64]]

    @property
    def manifest_uri(self) -> str:
        """Where the manifest will be."""
        return store.join(self.root, "manifest.json")

    @property
    def encoding(self) -> str:
        """How the images lie in the shards, as the manifest says it."""
        return "original" if self.data.max_side is None else f"max_side={self.data.max_side}"

    def index_uri(self, number: int) -> str:
        """Where the index of a shard is, which is written after the shard."""
        return store.join(self.root, "index", f"{self.names[number]}.json")


def plan(data: schema.Data, storage: str) -> ShardLayout:
    """Opens the source and lays out its shards: seeded split, seeded global shuffle, equal pieces.

    Args:
        data: source, split shares, shard size, seed.
        storage: root uri; the shards go to ``storage/data/NAME/DIGEST/``.

    Raises:
        ConfigError: the source is not there.
        DataError: a split would be empty.
    """
    return _laid_out(data, catalog.open_source(data), store.join(storage, "data", data.name))


def groups(layout: ShardLayout, shards_per_task: int, numbers: Sequence[int] | None = None) -> list[list[int]]:
    """Shard numbers, all of them or those that are given, in groups; one group a task."""
    numbers = range(len(layout.names)) if numbers is None else numbers
    return [list(numbers[i : i + shards_per_task]) for i in range(0, len(numbers), shards_per_task)]


def split_indices(source: Source, data: schema.Data) -> dict[str, NDArray[np.int64]]:
    """Shuffled source indices of train, minival and val.

    Where the source has official parts they stay as they are; but with ``data.minival=cut`` an official validation
    part joins train, as where Flowers-102 or Aircraft is trained on both for its final score. Else minival is a
    seeded part of train, as in the paper (25,022 of 1,281,167), and is never trained on. ``data.limit`` takes the
    first of the shuffled whole.
    """
    rng = np.random.default_rng(data.seed)
    order = rng.permutation(len(source.labels))[: data.limit]
    if source.own_val:
        val, rest = order[source.split[order] == VAL], order[source.split[order] != VAL]
    else:
        n_val = round(len(order) * data.val_share)
        val, rest = order[:n_val], order[n_val:]
    if data.minival == "official" and np.any(source.split == MINIVAL):
        minival, train = rest[source.split[rest] == MINIVAL], rest[source.split[rest] == TRAIN]
    else:
        n_minival = round(len(rest) * data.minival_share)
        minival, train = rest[:n_minival], rest[n_minival:]
    return dict(zip(SPLITS, (train, minival, val), strict=True))


def _laid_out(data: schema.Data, source: Source, folder: str) -> ShardLayout:
    # Everything that the bytes of the shards hang on, and nothing else: not who writes them, nor in what groups.
    settings = (
        LAYOUT_VERSION,
        source.digest,
        data.limit,
        data.val_share,
        data.minival,
        data.minival_share,
        data.samples_per_shard,
        data.seed,
        data.verify_images,
        data.max_side,
    )
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
    return ShardLayout(data, source, store.join(folder, digest), names, splits, members)


class Plans:
    """Plans of this process by root: an index of 138 GB is made once, and read by every other process."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, ShardLayout] = OrderedDict()
        self._lock = threading.Lock()

    def share(self, layout: ShardLayout) -> None:
        """Saves the index of the source beside the shards, for the tasks that write them wherever they run."""
        catalog.save(layout.source, _source_uri(layout.root))
        with self._lock:
            self._keep(layout)

    def get(self, data: schema.Data, root: str) -> ShardLayout:
        """The plan that was shared under ``root``.

        Raises:
            NotFoundError: none was shared.
            DataError: its source has changed since.
        """
        with self._lock:  # threads of this process load one after the other, and so once
            if (layout := self._plans.get(root)) is None:
                folder, _, digest = root.rpartition("/")
                layout = _laid_out(data, catalog.load(data, _source_uri(root)), folder)
                if layout.root != root:
                    raise DataError(f"{data.name}: its source is another one than {digest} was planned for; start anew")
                self._keep(layout)
            return layout

    def _keep(self, layout: ShardLayout) -> None:
        self._plans[layout.root] = layout
        if len(self._plans) > _KEPT:
            self._plans.popitem(last=False)


def _source_uri(root: str) -> str:
    return store.join(root, "source.npz")


PLANS = Plans()
