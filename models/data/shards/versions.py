"""Later versions of a data set, made by ``data.append``: new shards beside the old ones, and a manifest over both.

::

    DIGEST/manifest.json, source.npz                    the first version
    DIGEST/manifest-0002.json, source-0002-5f0c9a31.npz   the second: its manifest, and the index of what it added
    DIGEST/train-5f0c9a31-00000-of-00003.tar            a shard that the second version added

No object of an older version is written again, so the jobs that were made for it keep their data. Minival and val are
those of the first version: new images whose content would place them there are withheld.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from conf import schema
from infra import store
from infra.errors import ConfigError, DataError, TransientError
from models.data.shards import manifest as manifests
from models.data.shards.manifest import Manifest
from models.data.sources import index
from models.data.sources.listing import Source
from models.data.sources.reader import Reader

_MANIFEST = re.compile(r"manifest-(\d{4})\.json")


@dataclass(frozen=True)
class Version:
    """A version of a data set.

    Attributes:
        root: URI of the folder of all versions.
        number: Number of the version, from 1.
        sha256: Digest of its manifest.
        manifest: Its manifest.
    """

    root: str
    number: int
    sha256: str
    manifest: Manifest


def manifest_uri(root: str, number: int) -> str:
    """Returns the uri of the manifest of a version."""
    return store.join(root, "manifest.json" if number == 1 else f"manifest-{number:04}.json")


def source_uri(root: str, version: str) -> str:
    """Returns the uri of the index of the images that a version added; ``version`` is empty for the first."""
    return store.join(root, f"source-{version}.npz" if version else "source.npz")


def number_of(version: str) -> int:
    """Returns the number of a version that is named ``0002-5f0c9a31``, or 1 for the first, whose name is empty."""
    return int(version.partition("-")[0]) if version else 1


def find_newest(folder: str, digest_of: Callable[[str], str]) -> Version | None:
    """Returns the newest version of the data set in ``folder`` that has the same settings; None if there is none.

    Of several data sets with these settings, as of a folder that grew and was sharded anew, the last one counts.

    Args:
        folder: ``STORAGE/data/NAME``.
        digest_of: Function from the digest of a source to the name of the folder of its shards.

    Raises:
        DataError: A manifest is damaged, or shards of the newest version are missing from the store.
    """
    roots = {}
    for entry in store.list_entries(folder):
        root, _, name = entry.uri.rpartition("/")
        if name == "manifest.json" and root.rpartition("/")[0] == folder:
            roots[root] = entry.modified
    for root in sorted(roots, key=lambda uri: -roots[uri]):
        if root.rpartition("/")[2] == digest_of(manifests.source_digest(manifest_uri(root, 1))):
            return _load_newest(root)
    return None


def _load_newest(root: str) -> Version:
    stored = {uri.rpartition("/")[2]: size for uri, size in store.list_sizes(root)}
    number = max((int(match[1]) for name in stored if (match := _MANIFEST.fullmatch(name))), default=1)
    sha256, manifest = manifests.load(manifest_uri(root, number))
    if lost := [shard.name for shard in manifest.shards if stored.get(shard.name) != shard.bytes]:
        raise DataError(
            f"{root}: {len(lost)} shards are missing or have another size, the first is {lost[0]}: nothing is "
            "appended; shard the whole folder without data.append"
        )
    return Version(root, number, sha256, manifest)


def select_new(data: schema.Data, source: Source, content: NDArray[np.uint64], newest: Version) -> Source | None:
    """Returns the images of a source that no version has, with the labels of the first version; None without any.

    Args:
        data: Data settings.
        source: The whole folder, or one with new images only.
        content: ``[N]``, digests of its images.
        newest: Version to append to.

    Raises:
        ConfigError: The source has a class that the data set has not, or ``data.limit`` is set.
        DataError: An image is in the data set under another class.
    """
    if data.limit is not None:
        raise ConfigError("data.limit and data.append exclude each other")
    classes = newest.manifest.classes
    if new_classes := [name for name in source.classes if name not in classes]:
        raise ConfigError(
            f"{data.name}: class {new_classes[0]!r} is not in the data set to append to; shard the whole folder "
            "without data.append, under another data.name"
        )
    label_of = np.array([classes.index(name) for name in source.classes], np.int32)
    labels = label_of[source.labels]
    known = _read_known(newest.root)
    fresh = []
    for number, (image, label) in enumerate(zip(content.tolist(), labels.tolist(), strict=True)):
        if image not in known:
            fresh.append(number)
        elif label not in known[image]:
            raise DataError(
                f"{data.name}: {bytes(source.names[number]).decode(errors='replace')} is in the data set as "
                f"{classes[min(known[image])]!r}, not as {classes[label]!r}; shard the whole folder without data.append"
            )
    if not fresh:
        return None
    return _select(replace(source, labels=labels, classes=classes), content, np.array(fresh))


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


def _read_known(root: str) -> dict[int, set[int]]:
    """Labels of the images of all versions, by their content; a file may lie in the folders of two classes."""
    names = re.compile(r"source(-\d{4}-[0-9a-f]{8})?\.npz")
    known: dict[int, set[int]] = {}
    for uri in store.list_uris(root):
        if names.fullmatch(uri.rpartition("/")[2]) and _is_published(uri):
            labels, content = index.load_content(uri)
            for image, label in zip(content.tolist(), labels.tolist(), strict=True):
                known.setdefault(image, set()).add(label)
    return known


def _is_published(uri: str) -> bool:
    """Whether the version of an index has a manifest: it is none of a command that was stopped."""
    root, _, name = uri.rpartition("/")
    version = name.removeprefix("source").removesuffix(".npz").removeprefix("-")
    if not version:
        return True
    manifest = manifest_uri(root, number_of(version))
    return store.exists(manifest) and manifests.source_digest(manifest).startswith(version.partition("-")[2])


def publish(manifest: Manifest, root: str, version: str) -> tuple[str, Manifest]:
    """Writes the manifest of an appended version: the shards of the version before, then its own.

    Args:
        manifest: Manifest of the shards that were added.
        root: Folder of all versions.
        version: Name of the version.

    Raises:
        TransientError: Another process has appended a version meanwhile; the same command appends to that one.
    """
    number = number_of(version)
    _, old = manifests.load(manifest_uri(root, number - 1))
    whole = replace(
        manifest,
        shards=(*old.shards, *manifest.shards),
        table=np.concatenate([old.table, manifest.table]),
        quarantine=(*old.quarantine, *manifest.quarantine),
        unusual=(*old.unusual, *manifest.unusual),
        missing=old.missing,
    )
    sha256 = manifests.save_version(whole, manifest_uri(root, number))
    if sha256 is None:
        raise TransientError(f"{manifest.name}: another process has appended images; run the command again")
    return sha256, whole
