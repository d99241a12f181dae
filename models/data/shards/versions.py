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

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conf.text import count
from infra import store
from infra.errors import AppendError, DataError, NotFoundError, TransientError
from models.data.shards import acceptance, frozen_val, refusals
from models.data.shards import manifest as manifests
from models.data.shards.acceptance import Unaccepted, name_version
from models.data.shards.manifest import Manifest
from models.data.shards.refusals import RefusedVersion, load_images, source_uri
from models.data.sources import index

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
            if version.digest == digest[:8] and version.number > self.number and self._is_based_on_this(version):
                return version.version
        return name_version(max(self.last, self.number) + 1, digest)

    def _is_based_on_this(self, version: Unaccepted) -> bool:
        """Whether a version has no manifest yet, or its own, without images of others that are not accepted."""
        try:
            _, manifest = manifests.load(manifest_uri(self.root, version.number))
        except NotFoundError:
            return True
        if manifest.source_digest[:8] != version.digest:  # of another process, which took the number first
            return False
        return not any(_is_part(other, manifest) for other in self.unaccepted)


def has_images_of(manifest: Manifest, digest: str) -> bool:
    """Whether the images of the version that is named after this digest are part of a data set."""
    return any(shard.name.startswith(f"train-{digest[:8]}-") for shard in manifest.shards)


def manifest_uri(root: str, number: int) -> str:
    """Returns the uri of the manifest of a version."""
    return store.join(root, "manifest.json" if number == 1 else f"manifest-{number:04}.json")


def _number_in(name: str) -> int:
    """Returns the number of the version whose manifest has this name; only those of later versions hold it."""
    match = _MANIFEST.fullmatch(name)
    return int(match[1]) if match else 1


def _load(manifest_uri: str) -> Version:
    """Loads the version whose manifest this is."""
    root, _, name = manifest_uri.rpartition("/")
    return Version(root, _number_in(name), *manifests.load(manifest_uri))


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
        AppendError: Shards of the newest version are missing from the store.
        DataError: A manifest is damaged.
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


def has_accepted(folder: str, digest_of: Callable[[str], str]) -> bool:
    """Whether a first version of these settings is accepted; the arguments are those of ``find_newest``."""
    uris = (manifest_uri(root, 1) for root in _list_roots(folder))
    return any(
        uri.split("/")[-2] == digest_of(manifests.source_digest(uri)) and acceptance.find(uri) is None for uri in uris
    )


def _load_newest(root: str) -> Version | None:
    stored = {uri.rpartition("/")[2]: size for uri, size in store.list_sizes(root)}
    unaccepted = acceptance.load(root, list(stored))
    numbers = [1, *(int(match[1]) for name in stored if (match := _MANIFEST.fullmatch(name)))]
    number = max(_drop_unaccepted(root, numbers, unaccepted), default=0)
    if not number:
        return None
    sha256, manifest = manifests.load(manifest_uri(root, number))
    if lost := [shard.name for shard in manifest.shards if stored.get(shard.name) != shard.bytes]:
        raise AppendError(
            f"{root}: {count(len(lost), 'shard')} {'is' if len(lost) == 1 else 'are'} missing or of another size, the "
            f"first is {lost[0]}: nothing is appended; shard the whole folder with data.append=false"
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
    root = manifest_uri.rpartition("/")[0]
    if (version := acceptance.find(manifest_uri)) is not None:
        if version.number == 1:
            frozen_val.restore(root)
        acceptance.accept(root, version.version)
    refused = [one for one in refusals.load(root.rpartition("/")[0]) if one.mark.number > 1]
    if refused:
        known = read_known(_load(manifest_uri))
        for one in refused:
            if all(label in known.get(image, ()) for image, label in one.load_images()):
                acceptance.accept(one.root, one.mark.version)


def withdraw(manifest_uri: str, reason: str) -> Unaccepted | None:
    """Refuses the version whose manifest this is, although it was accepted.

    A pending one, as after a night that was killed, is refused too, and one that is refused stays as it is.

    Returns:
        The refused version; None, and nothing is changed, if it is the first, or others were appended to it.
    """
    root, _, name = manifest_uri.rpartition("/")
    match = _MANIFEST.fullmatch(name)
    if match is None:
        return None
    mark = acceptance.find(manifest_uri)
    if mark is not None and mark.state == acceptance.PENDING:
        mark = acceptance.refuse(root, mark.version, reason)
    if mark is not None:
        return mark
    newest = _load_newest(root)
    if newest is None or newest.number != int(match[1]):
        return None
    return acceptance.withdraw(root, name_version(newest.number, newest.manifest.source_digest), reason)


def find_withdrawn(manifest_uri: str) -> Unaccepted | None:
    """Returns the refused version whose images a later one has."""
    root, _, name = manifest_uri.rpartition("/")
    if _MANIFEST.fullmatch(name) is None:
        return None
    _, manifest = manifests.load(manifest_uri)
    names = [uri.rpartition("/")[2] for uri in store.list_uris(root)]
    refused = (mark for mark in acceptance.load(root, names) if mark.state == acceptance.REFUSED)
    return next((mark for mark in refused if _is_part(mark, manifest)), None)


def _is_part(mark: Unaccepted, manifest: Manifest) -> bool:
    """Whether a version is an earlier one on which that of a manifest is based."""
    return mark.digest != manifest.source_digest[:8] and has_images_of(manifest, mark.digest)


def list_sources(newest: Version) -> list[str]:
    """Uris of the indices of the images of a version."""
    matches = ((uri, _SOURCE.fullmatch(uri.rpartition("/")[2])) for uri in store.list_uris(newest.root))
    return [uri for uri, match in matches if match and (match[1] is None or newest.contains(match[1]))]


def read_known(newest: Version) -> dict[int, set[str]]:
    """Classes of the images of a version, by their content; a file may lie in the folders of two classes."""
    known: dict[int, set[str]] = {}
    for uri in list_sources(newest):
        classes, labels, content = index.load_content(uri)
        for image, label in zip(content.tolist(), labels.tolist(), strict=True):
            known.setdefault(image, set()).add(classes[label])
    return known


def count_known(manifest_uri: str) -> int:
    """Returns how many images of its source a version has taken or withheld, and those that nights have refused."""
    version = _load(manifest_uri)
    taken = sum(len(index.load_content(uri)[1]) for uri in list_sources(version))
    refused = (one for one in refusals.load(version.root.rpartition("/")[0]) if one.mark.number > 1)
    return taken + sum(len(one.load_images()) for one in refused)


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
    if not read_known(Version(root, parent, sha256, old)).keys().isdisjoint(content.tolist()):
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
    _, whole = manifests.load(manifest_uri)
    prefix = f"train-{whole.source_digest[:8]}-"
    return _write_part(manifest_uri, whole, {shard.name for shard in whole.shards if shard.name.startswith(prefix)}, "")


def write_since(manifest_uri: str, earlier_uri: str) -> tuple[str, str, Manifest]:
    """As ``write_added``, of the images that a version and those before it added to an earlier one.

    If the earlier one is none of those, as after the set was sharded anew, only the last addition counts.
    """
    (root, _, name), (earlier_root, _, earlier_name) = manifest_uri.rpartition("/"), earlier_uri.rpartition("/")
    number, earlier = _number_in(name), _number_in(earlier_name)
    if number == 1 or earlier_root != root or earlier == find_parent(root, number):
        return write_added(manifest_uri)
    _, whole = manifests.load(manifest_uri)
    known = {shard.name for shard in manifests.load(earlier_uri)[1].shards}
    names = {shard.name for shard in whole.shards if shard.split == "train"} - known
    return _write_part(manifest_uri, whole, names, f"-since-{earlier:04}")


def _write_part(manifest_uri: str, whole: Manifest, names: Collection[str], suffix: str) -> tuple[str, str, Manifest]:
    root, _, name = manifest_uri.rpartition("/")
    bounds = np.cumsum([0, *(shard.samples for shard in whole.shards)])
    numbers = [number for number, shard in enumerate(whole.shards) if shard.name in names]
    added = replace(
        whole,
        shards=tuple(replace(whole.shards[number], split="val") for number in numbers),
        table=np.concatenate([whole.table[:0], *(whole.table[bounds[n] : bounds[n + 1]] for n in numbers)]),
        quarantine=(),
        unusual=(),
    )
    uri = store.join(root, name.replace("manifest", "added", 1).replace(".json", f"{suffix}.json"))
    sha256 = manifests.save_version(added, uri) if len(added.table) else ""
    if sha256 is None:
        raise DataError(f"{uri} does not list the images that {name} added; delete it and run again")
    return uri, sha256, added
