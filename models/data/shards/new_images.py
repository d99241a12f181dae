"""Which images of a source ``data.append`` adds: those that no version has, without the ones that were refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from conf import schema
from infra.errors import AppendError, ConfigError
from models.data.shards import refusals
from models.data.shards.acceptance import Unaccepted
from models.data.shards.image_check import printable
from models.data.shards.refusals import Image, RefusedVersion, list_images
from models.data.shards.versions import Version, list_sources, read_known
from models.data.sources import index
from models.data.sources.files.reader import Reader
from models.data.sources.listing import Source


def select_new(
    data: schema.Data,
    source: Source,
    content: NDArray[np.uint64],
    newest: Version,
    refused: Sequence[RefusedVersion] = (),
) -> tuple[Source | None, tuple[Unaccepted, ...]]:
    """Returns the images of a source to append, and the refused versions whose images are withheld.

    Args:
        data: Data settings.
        source: The whole folder, or one with new images only.
        content: ``[N]``, digests of its images.
        newest: Version to append to.
        refused: Refused versions of the data set.

    Returns:
        The images that no accepted version has, with the labels of the first version, None without any. Of a refused
        version in ``data.accept`` it is that version's images alone.

    Raises:
        ConfigError: The source has a class that the data set has not, or ``data.limit`` is set.
        AppendError: An image is in the data set under another class.
    """
    if data.limit is not None:
        raise ConfigError("data.limit and data.append exclude each other")
    classes = newest.manifest.classes
    if new_classes := [name for name in source.classes if name not in classes]:
        raise ConfigError(
            f"{data.name}: class {new_classes[0]!r} is not in the data set to append to; shard the whole folder "
            "with data.append=false, under another data.name"
        )
    known, images, fresh = read_known(newest), list_images(source, content), []
    for number, (image, name) in enumerate(images):
        if image not in known:
            fresh.append(number)
        elif name not in known[image]:
            raise AppendError(
                f"{data.name}: {bytes(source.names[number]).decode(errors='replace')} is in the data set as "
                f"{min(known[image])!r}, not as {name!r}; shard the whole folder with data.append=false"
            )
    batches = refusals.select_batches(refused, set(images), {images[number] for number in fresh})
    accepted = [batch for one, batch in batches.items() if one.version in refusals.list_accepted(data)]
    if accepted:
        fresh = [number for number in fresh if images[number] in accepted[0]]
        withheld: tuple[Unaccepted, ...] = ()
    else:
        fresh = [number for number in fresh if not any(images[number] in batch for batch in batches.values())]
        withheld = refusals.announce(data, batches)
    if not fresh:
        return None, withheld
    label_of = np.array([classes.index(name) for name in source.classes], np.int32)
    labelled = replace(source, labels=label_of[source.labels], classes=classes)
    return _select(labelled, content, np.array(fresh)), withheld


def withhold(
    data: schema.Data,
    source: Source,
    content: NDArray[np.uint64],
    refused: Sequence[RefusedVersion],
    kept: Collection[Image],
) -> tuple[Source, tuple[Unaccepted, ...]]:
    """Returns the source of a first version without the images that were refused, and the versions that they are of.

    Args:
        data: Data settings.
        source: The whole folder.
        content: ``[N]``, digests of its images.
        refused: Refused versions of the data set.
        kept: Images that stay nevertheless: those of a frozen val.
    """
    images = list_images(source, content)
    batches = refusals.select_batches(refused, set(images), set(images).difference(kept))
    batches = {one: batch for one, batch in batches.items() if one.version not in refusals.list_accepted(data)}
    if not batches:
        return source, ()
    rows = [number for number, image in enumerate(images) if not any(image in batch for batch in batches.values())]
    part = _select(source, content, np.array(rows, np.int64))
    digest = hashlib.sha256(part.digest.encode() + part.split.tobytes()).hexdigest()  # a first version has all splits
    return replace(part, digest=digest), refusals.announce(data, batches)


def _select(source: Source, content: NDArray[np.uint64], rows: NDArray[np.int64]) -> Source:
    """Some images of a source; the digest is that of their contents and labels."""
    if not isinstance(source.read, Reader):
        raise TypeError(f"the images of a set that grows are read by {type(source.read).__name__}")
    labels = source.labels[rows]
    return replace(
        source,
        labels=labels,
        split=source.split[rows],
        names=source.names[rows],
        sizes=source.sizes[rows],
        read=source.read.select(rows),
        content=content[rows],
        digest=hashlib.sha256(content[rows].tobytes() + labels.astype("<i4").tobytes()).hexdigest(),
    )


def describe_absent(
    newest: Version,
    content: NDArray[np.uint64],
    find_sharded: Callable[[bool, NDArray[np.int8], bool, NDArray[np.uint64]], NDArray[np.bool_]],
) -> str:
    """Says how many images of a version a source has not any more: the shards keep them.

    Images that do not decode, or that wait for the next val, do not count, since no shard has them.

    Args:
        newest: The version.
        content: ``[N]``, digests of the images of the source.
        find_sharded: Function from the images of a version (whether it is the first, ``Source.split`` and ``own_val``,
            digests) to which of them its shards have.

    Returns:
        A line; empty if all images are there, or none, as in a folder with new images only.
    """
    quarantined = {note.name for note in newest.manifest.quarantine}
    total = absent = 0
    for uri in list_sources(newest):
        _, _, digests = index.load_content(uri)
        names, split, own_val = index.load_places(uri)
        counts = np.array([printable(name) not in quarantined for name in names], np.bool_)
        counts &= find_sharded(uri.endswith("/source.npz"), split, own_val, digests)
        total += int(counts.sum())
        absent += int((counts & ~np.isin(digests, content)).sum())
    if absent in (0, total):
        return ""
    return (
        f"not in the folder any more, but still in the data: {absent:,} of the {total:,} images that were sharded "
        "before; to remove them, shard the whole folder with data.append=false"
    )
