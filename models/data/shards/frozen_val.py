"""The val split of a set that grows, frozen until it is renewed under another name.

``STORAGE/data/NAME/val/VAL.json`` lists content and class of its images, and which of them cannot be used. It is
written once, before the first manifest, and never changed, unless a night refuses these shards before a version of the
set is accepted; then it is kept beside them. Images that are added later and whose content would place them in val are
withheld from all splits; the next val, under another name, takes them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from conf import schema
from infra import store
from infra.errors import DataError, NotFoundError
from infra.store.json_objects import read_object
from models.data.sources.listing import Source, content_digest


@dataclass(frozen=True)
class FrozenVal:
    """A val split; an image is the digest of its encoded form (``Source.content``, hexadecimal) and its class name.

    Attributes:
        images: All images, sorted.
        unusable: Those of them that no shard has, since they do not decode; not part of the identity.
    """

    images: tuple[tuple[str, str], ...]
    unusable: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def sha256(self) -> str:
        """Digest that identifies the images and their classes."""
        return hashlib.sha256(_to_json({"images": self.images})).hexdigest()


def load(folder: str, name: str) -> FrozenVal | None:
    """Reads the val ``name`` of the data set in ``folder`` (``STORAGE/data/NAME``); None if it is not frozen yet.

    Raises:
        DataError: The object is damaged.
    """
    uri = uri_of(folder, name)
    try:
        body = read_object(uri, images=list)
    except NotFoundError:
        return None
    try:
        return FrozenVal(_read_images(body["images"]), _read_images(body.get("unusable", ())))
    except (TypeError, ValueError) as error:
        raise DataError(f"{uri} is not a list of images: {error}") from error


def _read_images(pairs: Iterable[Iterable[object]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(content), str(label)) for content, label in pairs)


def freeze(folder: str, name: str, val: FrozenVal) -> bool:
    """Writes a val split under its name; False if another process has written one, which then counts."""
    body = {"images": val.images} | ({"unusable": val.unusable} if val.unusable else {})
    return store.write(uri_of(folder, name), _to_json(body), if_absent=True)


def release(root: str, name: str) -> None:
    """Forgets a val split whose first version was refused: a corrected folder may have lost images of it.

    A copy beside the shards of that version, in ``root``, is for ``restore``.
    """
    uri = uri_of(root.rpartition("/")[0], name)
    store.write(store.join(root, f"val-{name}.json"), store.read(uri))
    store.delete(uri)


def restore(root: str) -> None:
    """Freezes the val of a refused first version again, which is accepted now; another one of its name stays."""
    for uri in store.list_uris(root):
        folder, _, file = uri.rpartition("/")
        if folder == root and file.startswith("val-") and file.endswith(".json"):  # not the index of a shard of val
            name = file.removeprefix("val-").removesuffix(".json")
            store.write(uri_of(root.rpartition("/")[0], name), store.read(uri), if_absent=True)


def describe(source: Source, content: NDArray[np.uint64], indices: NDArray[np.int64]) -> FrozenVal:
    """Returns the images of ``source`` with the given indices as a val split that can be frozen."""
    return FrozenVal(tuple(sorted(_identify(source, content, index) for index in indices.tolist())))


def apply(
    val: FrozenVal,
    data: schema.Data,
    source: Source,
    content: NDArray[np.uint64],
    drawn: Mapping[str, NDArray[np.int64]],
) -> tuple[dict[str, NDArray[np.int64]], int]:
    """Replaces the val split that was drawn by the frozen one.

    Args:
        val: The frozen val.
        data: Data settings.
        source: Source, which has grown since.
        content: Digests of its images.
        drawn: Source indices of train, minival and val, as drawn by content.

    Returns:
        The splits, and the number of images that were drawn into val and are withheld.

    Raises:
        DataError: Images of the frozen val are gone, or are of another class now.
    """
    remaining = Counter(val.images)
    digests = np.array(sorted({int(text, 16) for text, _ in val.images}), np.uint64)
    kept: list[int] = []
    for index in np.flatnonzero(np.isin(content, digests)).tolist():
        if remaining[image := _identify(source, content, index)] > 0:
            remaining[image] -= 1
            kept.append(index)
    if missing := (remaining - Counter(val.unusable)).total():  # those may have been deleted: they were in no shard
        gone = f"{missing} of {len(val.images)} images of its frozen val {data.frozen_val!r}"
        raise DataError(
            f"{data.name}: {gone} {'is' if missing == 1 else 'are'} gone or of another class; restore what is missing, "
            "or choose another val (data.frozen_val, in effnet nightly: nightly.val)"
        )
    is_copy = np.isin(content, digests)  # of an image of val: no part of train either
    splits = {split: indices[~is_copy[indices]] for split, indices in drawn.items() if split != "val"}
    order = drawn["val"]
    in_val = np.array(kept, np.int64)
    first = order[np.isin(order, in_val)]
    splits["val"] = np.concatenate([first, in_val[~np.isin(in_val, order)]])
    return {split: splits[split] for split in drawn}, len(order) - len(first)


def find_name(folder: str, counts: Mapping[str, int], sample: Sequence[tuple[bytes, str]]) -> str | None:
    """Returns the name of the frozen val from which a val split was made.

    That is the smallest one which has the images: the next val has those of the one before, too.

    Args:
        folder: ``STORAGE/data/NAME``.
        counts: Images of the split by class name.
        sample: Some of its images, as stored in the shards, with their class names.

    Returns:
        None if there is none, or if the shards hold other bytes than the source's, so that digests do not agree.

    Raises:
        DataError: An object is damaged.
    """
    images = {(f"{content_digest(data):016x}", label) for data, label in sample}
    names = [uri.rpartition("/")[2].removesuffix(".json") for uri in store.list_uris(store.join(folder, "val"))]
    sizes: dict[str, int] = {}
    for name in names:
        val = load(folder, name)
        if (
            val is not None
            and images <= set(val.images)
            and Counter(counts) <= Counter(label for _, label in val.images)
        ):
            sizes[name] = len(val.images)
    return min(sizes, key=sizes.__getitem__, default=None) if images else None


def uri_of(folder: str, name: str) -> str:
    """Returns the uri of the val ``name`` of the data set in ``folder``."""
    return store.join(folder, "val", f"{name}.json")


def _identify(source: Source, content: NDArray[np.uint64], index: int) -> tuple[str, str]:
    return f"{int(content[index]):016x}", source.classes[int(source.labels[index])]


def _to_json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
