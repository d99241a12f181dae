"""Later versions of a data set, made by ``data.append``: new shards beside the old ones, and a manifest over both.

::

    DIGEST/manifest.json, source.npz                    the first version
    DIGEST/manifest-0002.json, source-0002-5f0c9a31.npz   the second: its manifest, and the index of what it added
    DIGEST/train-5f0c9a31-00000-of-00003.tar            a shard that the second version added

No object of an older version is written again, so the jobs that were made for it keep their data. Minival and val are
those of the first version: new images whose content would place them there are withheld. A version that a night has
refused is in no later one (``acceptance.py``, ``refusals.py``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from conf import schema
from infra import store
from infra.errors import ConfigError, DataError, TransientError
from models.data.shards import acceptance, refusals
from models.data.shards import manifest as manifests
from models.data.shards.acceptance import Unaccepted, name_version
from models.data.shards.image_check import printable
from models.data.shards.manifest import Manifest
from models.data.shards.refusals import Image, RefusedVersion, list_images, load_images, source_uri
from models.data.sources import index
from models.data.sources.listing import Source
from models.data.sources.reader import Reader

_MANIFEST = re.compile(r"manifest-(\d{4})\.json")
_SOURCE = re.compile(r"source(?:-\d{4}-([0-9a-f]{8}))?\.npz")


@dataclass(frozen=True)
class Version:
    """A version of a data set.

    Attributes:
        root: URI of the folder of all versions.
        number: Number of the version, from 1.
        sha256: Digest of its manifest.
        manifest: Its manifest.
        last: Highest number of a version, accepted or not.
        unaccepted: The versions that are not accepted.
    """

    root: str
    number: int
    sha256: str
    manifest: Manifest
    last: int = 1
    unaccepted: tuple[Unaccepted, ...] = ()

    def contains(self, digest: str) -> bool:
        """Whether the images of the version that is named after this digest are part of this version."""
        return has_images_of(self.manifest, digest)

    def name_next(self, digest: str) -> str:
        """Names the version that adds images of this digest to this one: as before, if it was not accepted yet."""
        for version in self.unaccepted:
            if version.digest == digest[:8] and version.number > self.number:
                return version.version
        return name_version(max(self.last, self.number) + 1, digest)


def has_images_of(manifest: Manifest, digest: str) -> bool:
    """Whether the images of the version that is named after this digest are part of a data set."""
    return any(shard.name.startswith(f"train-{digest[:8]}-") for shard in manifest.shards)


def manifest_uri(root: str, number: int) -> str:
    """Returns the uri of the manifest of a version."""
    return store.join(root, "manifest.json" if number == 1 else f"manifest-{number:04}.json")


def number_of(version: str) -> int:
    """Returns the number of a version that is named ``0002-5f0c9a31``, or 1 for the first, whose name is empty."""
    return int(version.partition("-")[0]) if version else 1


def find_newest(folder: str, digest_of: Callable[[str], str], refused: Sequence[RefusedVersion] = ()) -> Version | None:
    """Returns the newest accepted version of the data set in ``folder`` of these settings; None if there is none.

    Of several data sets with these settings, as of a folder that grew and was sharded anew, the last one counts. One
    that was sharded anew after a refusal, with the images that had been refused, is none to append to: another first
    version is written, without them.

    Args:
        folder: ``STORAGE/data/NAME``.
        digest_of: Function from the digest of a source to the name of the folder of its shards.
        refused: Versions whose images are to be withheld.

    Raises:
        DataError: A manifest is damaged, or shards of the newest version are missing from the store.
    """
    roots = _list_roots(folder)
    for root in sorted(roots, key=lambda uri: -roots[uri]):
        if root.rpartition("/")[2] != digest_of(manifests.source_digest(manifest_uri(root, 1))):
            continue
        newest = _load_newest(root)
        if newest is None:
            continue
        earlier = [one for one in refused if one.mark.number > 1 and one.root != root and one.written < roots[root]]
        whole = load_images(source_uri(root, "")) if earlier else set()
        return None if any(images and images <= whole for images in (one.load_images() for one in earlier)) else newest
    return None


def _list_roots(folder: str) -> dict[str, float]:
    """The folders of the shards of a data set that have a first version, and when it was written."""
    roots = {}
    for entry in store.list_entries(folder):
        root, _, name = entry.uri.rpartition("/")
        if name == "manifest.json" and root.rpartition("/")[0] == folder:
            roots[root] = entry.modified
    return roots


def has_accepted(folder: str) -> bool:
    """Whether a first version of the data set in ``folder`` is accepted, of whatever settings."""
    return any(acceptance.find(manifest_uri(root, 1)) is None for root in _list_roots(folder))


def _load_newest(root: str) -> Version | None:
    stored = {uri.rpartition("/")[2]: size for uri, size in store.list_sizes(root)}
    unaccepted = acceptance.load(root, list(stored))
    numbers = [1, *(int(match[1]) for name in stored if (match := _MANIFEST.fullmatch(name)))]
    number = max(_drop_unaccepted(root, numbers, unaccepted), default=0)
    if not number:
        return None
    sha256, manifest = manifests.load(manifest_uri(root, number))
    if lost := [shard.name for shard in manifest.shards if stored.get(shard.name) != shard.bytes]:
        raise DataError(
            f"{root}: {len(lost)} shards are missing or have another size, the first is {lost[0]}: nothing is "
            "appended; shard the whole folder without data.append"
        )
    last = max([*numbers, *(version.number for version in unaccepted)])
    return Version(root, number, sha256, manifest, last, unaccepted)


def _drop_unaccepted(root: str, numbers: Collection[int], unaccepted: tuple[Unaccepted, ...]) -> list[int]:
    """The numbers of accepted versions."""
    return [one for one in numbers if not acceptance.is_marked(manifest_uri(root, one), one, unaccepted)]


def find_parent(root: str, number: int) -> int:
    """Returns the number of the version to which version ``number`` adds images: the newest accepted one before it."""
    names = [uri.rpartition("/")[2] for uri in store.list_uris(root)]
    earlier = {one for name in names if (match := _MANIFEST.fullmatch(name)) and (one := int(match[1])) < number}
    return max([1, *_drop_unaccepted(root, earlier, acceptance.load(root, names))])


def accept(manifest_uri: str) -> None:
    """Accepts the version whose manifest this is, and with it refused versions whose images it all contains."""
    if (version := acceptance.find(manifest_uri)) is not None:
        acceptance.accept(manifest_uri.rpartition("/")[0], version.version)
    root, _, name = manifest_uri.rpartition("/")
    refused = [one for one in refusals.load(root.rpartition("/")[0]) if one.mark.number > 1]
    if refused:
        match = _MANIFEST.fullmatch(name)
        known = _read_known(Version(root, int(match[1]) if match else 1, *manifests.load(manifest_uri)))
        for one in refused:
            if all(label in known.get(image, ()) for image, label in one.load_images()):
                acceptance.accept(one.root, one.mark.version)


def withdraw(manifest_uri: str, reason: str) -> Unaccepted | None:
    """Refuses the version whose manifest this is, although it was accepted.

    Returns:
        The refused version; None, and nothing is changed, unless it is the newest accepted one after the first.
    """
    root, _, name = manifest_uri.rpartition("/")
    match = _MANIFEST.fullmatch(name)
    newest = _load_newest(root) if match else None
    if match is None or newest is None or newest.number != int(match[1]):
        return None
    return acceptance.withdraw(root, name_version(newest.number, newest.manifest.source_digest), reason)


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
    known, images, fresh = _read_known(newest), list_images(source, content), []
    for number, (image, name) in enumerate(images):
        if image not in known:
            fresh.append(number)
        elif name not in known[image]:
            raise DataError(
                f"{data.name}: {bytes(source.names[number]).decode(errors='replace')} is in the data set as "
                f"{min(known[image])!r}, not as {name!r}; shard the whole folder without data.append"
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


def describe_absent(newest: Version, content: NDArray[np.uint64]) -> str:
    """Says how many images of a version a source has not any more: the shards keep them.

    Images that do not decode do not count, since no shard has them.

    Args:
        newest: The version.
        content: ``[N]``, digests of the images of the source.

    Returns:
        A line; empty if all images are there, or none, as in a folder with new images only.
    """
    quarantined = {note.name for note in newest.manifest.quarantine}
    total = absent = 0
    for uri in _list_sources(newest):
        _, _, digests = index.load_content(uri)
        counts = np.array([printable(name) not in quarantined for name in index.load_names(uri)], np.bool_)
        total += int(counts.sum())
        absent += int((counts & ~np.isin(digests, content)).sum())
    if absent in (0, total):
        return ""
    return (
        f"not in the folder any more, but still in the data: {absent:,} of the {total:,} images that were sharded "
        "before; to remove them, shard the whole folder without data.append"
    )


def _list_sources(newest: Version) -> list[str]:
    """Uris of the indices of the images of a version."""
    matches = ((uri, _SOURCE.fullmatch(uri.rpartition("/")[2])) for uri in store.list_uris(newest.root))
    return [uri for uri, match in matches if match and (match[1] is None or newest.contains(match[1]))]


def _read_known(newest: Version) -> dict[int, set[str]]:
    """Classes of the images of a version, by their content; a file may lie in the folders of two classes."""
    known: dict[int, set[str]] = {}
    for uri in _list_sources(newest):
        classes, labels, content = index.load_content(uri)
        for image, label in zip(content.tolist(), labels.tolist(), strict=True):
            known.setdefault(image, set()).add(classes[label])
    return known


def publish(manifest: Manifest, root: str, version: str) -> tuple[str, Manifest]:
    """Writes the manifest of an appended version: the shards of the accepted version before, then its own.

    Args:
        manifest: Manifest of the shards that were added.
        root: Folder of all versions.
        version: Name of the version.

    Raises:
        TransientError: Another process has appended a version meanwhile; the same command appends to that one.
    """
    number = number_of(version)
    parent = find_parent(root, number)
    sha256, old = manifests.load(manifest_uri(root, parent))
    *_, content = index.load_content(source_uri(root, version))
    if not _read_known(Version(root, parent, sha256, old)).keys().isdisjoint(content.tolist()):
        raise TransientError(f"{manifest.name}: another process has appended images; run the command again")
    whole = replace(
        manifest,
        shards=(*old.shards, *manifest.shards),
        table=np.concatenate([old.table, manifest.table]),
        quarantine=(*old.quarantine, *manifest.quarantine),
        unusual=(*old.unusual, *manifest.unusual),
        missing=old.missing,
    )
    written = manifests.save_version(whole, manifest_uri(root, number))
    if written is None:
        raise TransientError(f"{manifest.name}: another process has appended images; run the command again")
    return written, whole


def write_added(manifest_uri: str) -> tuple[str, str, Manifest]:
    """Writes a manifest of the images alone that a version added to train, as split ``val``, so as to evaluate on them.

    Returns:
        Its uri, its sha256 and the manifest; without shards, and not written, if no image was added.
    """
    root, _, name = manifest_uri.rpartition("/")
    _, whole = manifests.load(manifest_uri)
    prefix = f"train-{whole.source_digest[:8]}-"
    bounds = np.cumsum([0, *(shard.samples for shard in whole.shards)])
    numbers = [number for number, shard in enumerate(whole.shards) if shard.name.startswith(prefix)]
    added = replace(
        whole,
        shards=tuple(replace(whole.shards[number], split="val") for number in numbers),
        table=np.concatenate([whole.table[:0], *(whole.table[bounds[n] : bounds[n + 1]] for n in numbers)]),
        quarantine=(),
        unusual=(),
    )
    uri = store.join(root, name.replace("manifest", "added", 1))
    sha256 = manifests.save_version(added, uri) if len(added.table) else ""
    if sha256 is None:
        raise DataError(f"{uri} does not list the images that {name} added; delete it and run again")
    return uri, sha256, added
