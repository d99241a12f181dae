"""Assigns images to shards from the source index and the settings alone; no pixels are read."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from conf import schema
from conf.data_set import IN_PLACE
from infra import store
from infra.errors import ConfigError, DataError
from models.data.shards import contents, frozen_val, new_images, refusals, versions
from models.data.shards.acceptance import Unaccepted, name_version
from models.data.shards.frozen_val import FrozenVal
from models.data.shards.image_check import printable
from models.data.shards.manifest import ImageNote
from models.data.shards.refusals import RefusedVersion
from models.data.shards.split import split_by_content, split_indices
from models.data.sources import catalog, index, listing
from models.data.sources.duplicates import find_duplicates
from models.data.sources.files.container import join_parts, locate_uri
from models.data.sources.files.reader import Reader
from models.data.sources.folders.tree import refuse_other_formats
from models.data.sources.listing import Source

LAYOUT_VERSION = 4  # increment when the same source must produce different shards
# What gives a split more images.
_SHARES = {"train": "lower data.val_share", "minival": "raise data.minival_share", "val": "raise data.val_share"}
_MAX_PLANS = 2  # plans kept in memory: all groups of a set share one


@dataclass(frozen=True)
class ShardLayout:
    """Assignment of images to shards; a pure function of the source and the settings.

    Attributes:
        data: Data settings.
        source: Source of the images.
        root: Uri of the folder in the store; its last part is the digest of source and settings.
        names: Names of the shards.
        splits: Split of each shard.
        members: Source indices of each shard, already shuffled.
        val: The val split, where ``data.frozen_val`` names it.
        withheld: Number of images that wait for the next val.
        version: Name of the version that these shards are added by (``versions.py``); empty for the first.
        addresses: URI of the foreign tar that each shard is part of, with ``data.shards=in_place``; otherwise empty.
        refused: Refused versions whose images ``data.append`` withholds (``refusals.py``).
        state: State of the files before their images were read (``states.py``); empty if unknown.
        absent: Line about images of the version to append to that the source has not any more; empty for none.
    """

    data: schema.Data
    source: Source
    root: str
    names: list[str]
    splits: list[str]
    members: list[NDArray[np.int64]]
    val: FrozenVal | None = None
    withheld: int = 0
    version: str = ""
    addresses: tuple[str, ...] = ()
    refused: tuple[Unaccepted, ...] = ()
    state: str = ""
    absent: str = ""

    @property
    def manifest_uri(self) -> str:
        """Uri of the manifest."""
        return versions.manifest_uri(self.root, versions.number_of(self.version))

    @property
    def version_name(self) -> str:
        """Name of the version, also of the first."""
        return self.version or name_version(1, self.source.digest)

    @property
    def encoding(self) -> str:
        """Encoding of the images in the shards, as recorded in the manifest."""
        return "original" if self.data.max_side is None else f"max_side={self.data.max_side}"

    def index_uri(self, number: int) -> str:
        """Returns the uri of a shard's index, which is written after the shard."""
        return store.join(self.root, "index", f"{self.names[number]}.json")


def plan(data: schema.Data, storage: str) -> ShardLayout:
    """Opens the source and lays out its shards: split, seeded global shuffle, shards of equal length.

    The splits of a set that grows depend on the content of its images, so those that no earlier command has read are
    read (``contents.py``); of the tars of others, all if one was written since the last command.

    Args:
        data: Source, split fractions, shard size, seed.
        storage: Root uri; the shards are written to ``storage/data/NAME/DIGEST/``.

    Raises:
        ConfigError: The source does not exist, ``data.frozen_val`` or ``data.append`` is set for a set that does not
            grow, or a split would be empty and the images have formats that are not read.
        DataError: A split would be empty, images of the frozen val are gone, or many images are in several classes.
    """
    folder = store.join(storage, "data", data.name)
    source = _open_source(data, folder)
    if not data.append:
        return _build_layout(data, source, folder)
    return _plan_append(data, source, _require_content(data, source), folder)


def _open_source(data: schema.Data, folder: str) -> Source:
    if data.source == "webdataset":
        return index.open_kept(data, folder, _open_tars)
    source = catalog.open_source(data)
    if not catalog.find(data.source).grows:
        return source
    return _with_duplicates(data, contents.add_contents(source, folder))


def _open_tars(data: schema.Data) -> Source:
    return _with_duplicates(data, listing.with_content(catalog.open_source(data)))


def _with_duplicates(data: schema.Data, source: Source) -> Source:
    return source if source.content is None else find_duplicates(data, source, source.content)


def _plan_append(data: schema.Data, source: Source, content: NDArray[np.uint64], folder: str) -> ShardLayout:
    """The layout of what ``data.append`` adds to the newest version of the set, or of the first version."""
    refused = refusals.load(folder)
    refusals.check_names(data, folder, refused)
    val = frozen_val.load(folder, data.frozen_val) if data.frozen_val is not None else None
    newest = None
    if data.frozen_val is None or val is not None:
        withheld = [one for one in refused if one.mark.version not in refusals.list_accepted(data)]
        newest = versions.find_newest(folder, lambda digest: _digest_settings(data, digest, val), withheld)
    if newest is None:
        return _plan_first(data, source, content, folder, refused, val)
    new, versions_withheld = new_images.select_new(data, source, content, newest, refused)
    layout = None
    if new is not None:
        layout = _build_version(data, new, newest.root, newest.name_next(new.digest))
    if layout is None or not layout.names:  # nothing to write: the newest version is the result
        name = "" if newest.number == 1 else name_version(newest.number, newest.manifest.source_digest)
        layout = ShardLayout(data, source, newest.root, [], [], [], version=name)
    absent = new_images.describe_absent(newest, content, lambda *images: _find_sharded(data, val, *images))
    return replace(layout, refused=versions_withheld, absent=absent)


def plan_anew(data: schema.Data, storage: str) -> ShardLayout:
    """As ``plan`` of a set that is appended to, but all images of the source begin it anew; refused ones are withheld.

    Raises:
        ConfigError, DataError: As ``plan``.
    """
    folder = store.join(storage, "data", data.name)
    source = _open_source(data, folder)
    content = _require_content(data, source)
    val = frozen_val.load(folder, data.frozen_val) if data.frozen_val is not None else None
    return _plan_first(data, source, content, folder, refusals.load(folder), val)


def _plan_first(
    data: schema.Data,
    source: Source,
    content: NDArray[np.uint64],
    folder: str,
    refused: Sequence[RefusedVersion],
    val: FrozenVal | None,
) -> ShardLayout:
    """The first version of a set that is appended to; images that a night has refused are withheld."""
    kept = {(int(digest, 16), name) for digest, name in val.images} if val is not None else ()
    source, withheld = new_images.withhold(data, source, content, refused, kept)
    return replace(_build_layout(data, source, folder), refused=withheld)


def _require_content(data: schema.Data, source: Source) -> NDArray[np.uint64]:
    if source.content is None:
        raise ConfigError(f"data.append is for sets that grow, as data=folder; the images of {data.name} are fixed")
    return source.content


def _find_sharded(
    data: schema.Data,
    val: FrozenVal | None,
    is_first: bool,
    split: NDArray[np.int8],
    own_val: bool,
    content: NDArray[np.uint64],
) -> NDArray[np.bool_]:
    """Which images of the source of a version are in its shards; the others wait for the next val."""
    if is_first and val is None:
        return np.ones(len(content), np.bool_)
    parts = split_by_content(split, own_val, content, data)
    sharded = np.zeros(len(content), np.bool_)
    sharded[parts["train"]] = True
    if is_first and val is not None:
        sharded[parts["minival"]] = True
        sharded |= np.isin(content, np.array([int(digest, 16) for digest, _ in val.images], np.uint64))
    return sharded


def _build_version(data: schema.Data, source: Source, root: str, version: str) -> ShardLayout:
    """The shards of the images that a later version adds to train."""
    parts = split_indices(source, data)
    train, withheld = parts["train"], len(parts["minival"]) + len(parts["val"])
    count = -(-len(train) // data.samples_per_shard)
    members = np.array_split(train, count) if count else []
    names = [f"train-{version.partition('-')[2]}-{number:05d}-of-{count:05d}.tar" for number in range(count)]
    return ShardLayout(data, source, root, names, ["train"] * count, members, withheld=withheld, version=version)


def freeze_val(layout: ShardLayout, quarantine: Sequence[ImageNote]) -> bool:
    """Writes the val of a layout under its name, if it has one; False if another val has that name already.

    Args:
        layout: Layout of a first version.
        quarantine: Images that its manifest excludes.
    """
    name, source = layout.data.frozen_val, layout.source
    if layout.val is None or name is None or source.content is None:
        return True
    excluded = {note.name for note in quarantine if note.split == "val"}
    parts = [part for part, split in zip(layout.members, layout.splits, strict=True) if split == "val" and excluded]
    rows = [row for part in parts for row in part.tolist() if printable(source.names[row]) in excluded]
    unusable = frozen_val.describe(source, source.content, np.array(rows, np.int64)).images
    folder = layout.root.rpartition("/")[0]
    frozen_val.freeze(folder, name, replace(layout.val, unusable=unusable))
    return frozen_val.load(folder, name) == layout.val


def has_accepted(data: schema.Data, folder: str, val: FrozenVal) -> bool:
    """Whether a first version of these settings with this val is accepted, in ``folder`` (``STORAGE/data/NAME``)."""
    return versions.has_accepted(folder, lambda digest: _digest_settings(data, digest, val))


def groups(layout: ShardLayout, shards_per_task: int, numbers: Sequence[int] | None = None) -> list[list[int]]:
    """Groups the shard numbers (all, or the given ones) for the tasks, one group per task."""
    tars = by_tar(layout, range(len(layout.names)) if numbers is None else numbers)
    return [
        [number for shards in tars[i : i + shards_per_task] for number in shards]
        for i in range(0, len(tars), shards_per_task)
    ]


def by_tar(layout: ShardLayout, numbers: Sequence[int]) -> list[list[int]]:
    """Returns the shard numbers by tar: a list of one, or in place those of the splits that a foreign tar has."""
    if not layout.addresses:
        return [[number] for number in numbers]
    return [list(shards) for _, shards in itertools.groupby(sorted(numbers), layout.addresses.__getitem__)]


def _split(
    source: Source, data: schema.Data, folder: str
) -> tuple[dict[str, NDArray[np.int64]], FrozenVal | None, int]:
    """Returns the splits, with the frozen val if ``data.frozen_val`` names one, and the number of withheld images."""
    splits = split_indices(source, data)
    if data.frozen_val is None:
        return splits, None, 0
    if source.content is None:
        raise ConfigError(f"data.frozen_val is for sets that grow, as data=folder; the splits of {data.name} are fixed")
    val = frozen_val.load(folder, data.frozen_val)
    if val is None:
        return splits, frozen_val.describe(source, source.content, splits["val"]), 0
    splits, withheld = frozen_val.apply(val, data, source, source.content, splits)
    return splits, val, withheld


def find_uncovered(layout: ShardLayout) -> dict[str, tuple[str, ...]]:
    """Returns the classes that have no image in train, and in val, as in a small folder; splits without any are absent.

    Of a later version of a set, whose new images may be of a few classes, there are none.
    """
    uncovered = {}
    for split in sorted({"train", "val"} & set(layout.splits)) if not layout.version else ():
        members = [part for part, of in zip(layout.members, layout.splits, strict=True) if of == split]
        labels = set(layout.source.labels[np.concatenate(members)].tolist())
        if absent := tuple(name for label, name in enumerate(layout.source.classes) if label not in labels):
            uncovered[split] = absent
    return uncovered


def _digest_settings(
    data: schema.Data, source_digest: str, val: FrozenVal | None, addresses: Sequence[str] = ()
) -> str:
    """Digest of everything that the bytes of the shards depend on, and of nothing else: neither writer nor grouping."""
    settings = (
        LAYOUT_VERSION,
        source_digest,
        data.limit,
        data.val_share,
        data.minival,
        data.minival_share,
        data.samples_per_shard,
        data.seed,
        data.verify_images,
        data.max_side,
        *(["convert"] if data.convert else []),
        *([f"val {val.sha256}"] if val is not None else []),
        *(["in place", *addresses] if addresses else []),
        *([f"fold {data.fold} of {data.folds}"] if data.folds > 1 else []),
    )
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def _build_layout(data: schema.Data, source: Source, folder: str) -> ShardLayout:
    if source.own_val:  # it is the val of every fold, so these have the same shards
        data = replace(data, folds=1, fold=0)
    parts, val, withheld = _split(source, data, folder)
    for split, indices in parts.items():
        if len(indices) == 0 and (split == "val" or not data.is_only_val):
            refuse_other_formats(data, source)
            limit = f" and data.limit={data.limit}" if data.limit is not None else ""
            raise DataError(
                f"{data.name}: no samples left for split {split!r} of {len(source.labels)} in all{limit}; "
                f"{_SHARES[split]}, or add images"
            )
    if data.shards == IN_PLACE:
        return _build_in_place(data, source, folder, parts, val, withheld)
    digest = _digest_settings(data, source.digest, val)
    names, splits, members = [], [], []
    for split, indices in parts.items():
        count = -(-len(indices) // data.samples_per_shard)
        for number, chunk in enumerate(np.array_split(indices, count) if count else ()):
            names.append(f"{split}-{number:05d}-of-{count:05d}.tar")
            splits.append(split)
            members.append(chunk)
    return ShardLayout(data, source, store.join(folder, digest), names, splits, members, val, withheld)


def _build_in_place(
    data: schema.Data,
    source: Source,
    folder: str,
    parts: dict[str, NDArray[np.int64]],
    val: FrozenVal | None,
    withheld: int,
) -> ShardLayout:
    """A layout whose shards are the source's tars: for each tar and split the samples in the order of the tar."""
    reader = source.read
    if not isinstance(reader, Reader):
        raise TypeError(f"tars that are read in place are read by {type(reader).__name__}")
    names, splits, members, addresses = [], [], [], []
    tars = [locate_uri(join_parts(reader.root, name)) for name in reader.containers]
    for number, address in enumerate(tars):
        for split, indices in parts.items():
            inside = indices[reader.container[indices] == number]
            if len(inside):
                names.append(f"{split}-{number:05d}-of-{len(tars):05d}.tar")
                splits.append(split)
                members.append(inside[np.argsort(reader.offsets[inside], kind="stable")])
                addresses.append(address)
    root = store.join(folder, _digest_settings(data, source.digest, val, tars))
    return ShardLayout(data, source, root, names, splits, members, val, withheld, addresses=tuple(addresses))


class Plans:
    """Cache of layouts by root: one process indexes the 155 GB of archives, the others load the result."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, str], ShardLayout] = OrderedDict()
        self._lock = threading.Lock()

    def share(self, layout: ShardLayout) -> None:
        """Saves the source index beside the shards, for the writing tasks on any machine."""
        index.save(layout.source, refusals.source_uri(layout.root, layout.version))
        with self._lock:
            self._remember(layout)

    def get(self, data: schema.Data, root: str, version: str = "") -> ShardLayout:
        """Returns the layout shared under ``root``; ``version`` names a later version of the data set.

        Raises:
            NotFoundError: No layout was shared.
            DataError: The source has changed since.
        """
        with self._lock:  # serialized, so that the threads of this process load it once
            if (layout := self._plans.get((root, version))) is None:
                folder, _, digest = root.rpartition("/")
                source = index.load(data, refusals.source_uri(root, version))
                layout = _build_version(data, source, root, version) if version else _build_layout(data, source, folder)
                if layout.root != root or (version and not version.endswith(source.digest[:8])):
                    raise DataError(
                        f"{data.name}: its source differs from the one {digest} was planned for; start again"
                    )
                self._remember(layout)
            return layout

    def _remember(self, layout: ShardLayout) -> None:
        self._plans[layout.root, layout.version] = layout
        if len(self._plans) > _MAX_PLANS:
            self._plans.popitem(last=False)


PLANS = Plans()
