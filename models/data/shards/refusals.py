"""Images that a night refused: withheld from what is appended, whatever else the folder holds by then.

A refusal is about the images of a version and the classes that they had, not about the folder of the shards: it also
counts where the set is sharded under another digest, as with another val, other settings, or from a folder that has
grown since. Its images are withheld as long as the source has all of them with the same classes. Once one of them was
removed or moved to another class, the others are new images again; a night with the name of the version in
``transfer.data.accept``, ``DATA/0002-5f0c9a31``, takes them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conf import schema
from conf.text import logger
from infra import store
from infra.errors import ConfigError, NotFoundError
from models.data.shards import acceptance
from models.data.shards import manifest as manifests
from models.data.shards.acceptance import REFUSED, Unaccepted
from models.data.sources import index
from models.data.sources.listing import Source

log = logger()
Image = tuple[int, str]  # digest of its content, and name of its class


@dataclass(frozen=True)
class RefusedVersion:
    """A version that a night refused.

    Attributes:
        root: URI of the folder of its shards.
        mark: Name of the version, and why it was refused.
        written: When it was refused, in unix seconds.
    """

    root: str
    mark: Unaccepted
    written: float

    def load_images(self) -> set[Image]:
        """Reads which images it has; none if another process has deleted the folder meanwhile."""
        try:
            return load_images(source_uri(self.root, self.mark.version))
        except NotFoundError:
            return set()


def source_uri(root: str, version: str) -> str:
    """Returns the uri of the index of the images that a version added; ``version`` is empty for the first."""
    return store.join(root, f"source-{version}.npz" if version and not version.startswith("0001-") else "source.npz")


def load_images(uri: str) -> set[Image]:
    """Returns the images of an index."""
    classes, labels, content = index.load_content(uri)
    return set(zip(content.tolist(), (classes[label] for label in labels.tolist()), strict=True))


def list_images(source: Source, content: NDArray[np.uint64]) -> list[Image]:
    """Returns the images of a source, in its order."""
    return list(zip(content.tolist(), (source.classes[label] for label in source.labels.tolist()), strict=True))


def load(folder: str) -> list[RefusedVersion]:
    """Returns the refused versions of a data set, of all folders of shards in ``folder``, each of them once."""
    refused: dict[str, RefusedVersion] = {}
    for entry in store.list_entries(folder):
        root, _, name = entry.uri.rpartition("/")
        if acceptance.NAME.fullmatch(name):
            for mark in acceptance.load(root, [name]):
                if mark.state == REFUSED:
                    refused[mark.version] = RefusedVersion(root, mark, entry.modified)
    return [refused[version] for version in sorted(refused)]


def list_accepted(data: schema.Data) -> list[str]:
    """Returns the names in ``data.accept`` that are of this data set, without its name."""
    names = (entry.rpartition("/") for entry in data.accept)
    return [version for name, _, version in names if name == data.name]


def is_accepted_by_name(data: schema.Data, version: str) -> bool:
    """Whether ``data.accept`` names this version, perhaps under an earlier number."""
    return bool(version) and version.partition("-")[2] in {name.partition("-")[2] for name in list_accepted(data)}


def check_names(data: schema.Data, folder: str, refused: Iterable[RefusedVersion]) -> None:
    """Checks that each name in ``data.accept`` is that of a refused version, or of one that was accepted since.

    Raises:
        ConfigError: There is no such version.
    """
    accepted = list_accepted(data)
    if not accepted:
        return
    names = [f"{data.name}/{version.mark.version}" for version in refused]
    made: set[str] = set()
    for uri in store.list_uris(folder):
        stem = uri.rpartition("/")[2].rpartition(".")[0]
        if stem.startswith("source-"):
            made.add(stem.rpartition("-")[2])
        elif uri.endswith("/manifest.json"):
            made.add(manifests.source_digest(uri)[:8])
    for version in accepted:
        name = f"{data.name}/{version}"
        if name not in names and version.partition("-")[2] not in made:
            there = ", ".join(names) or "none"
            raise ConfigError(f"data.accept: there is no refused version {name!r}; refused are {there}")


def select_batches(
    refused: Sequence[RefusedVersion], present: set[Image], fresh: set[Image]
) -> dict[Unaccepted, set[Image]]:
    """Returns the fresh images of refused versions whose images are all present as they were refused.

    Versions without a fresh image are omitted: accepted versions contain their images already. So are first versions,
    since they are refused as a whole.
    """
    batches = {}
    for version in refused:
        if version.mark.number > 1 and (images := version.load_images()) <= present and images & fresh:
            batches[version.mark] = images & fresh
    return batches


def announce(data: schema.Data, batches: dict[Unaccepted, set[Image]]) -> tuple[Unaccepted, ...]:
    """Says in the log which images are withheld; returns their versions."""
    for version, images in batches.items():
        log.warning("%s: %s", data.name, describe_withheld(data.name, version, len(images)))
    return tuple(batches)


def describe_withheld(name: str, version: Unaccepted, images: int | None = None) -> str:
    """Says which images are withheld, why, and how they can be used.

    Args:
        name: Name of the data set.
        version: The refused version.
        images: Number of the images that are withheld; None if it is not known.
    """
    accept = f"take it as it is: effnet nightly transfer.data.accept=[{name}/{version.version}]"
    if version.number == 1:
        return f"version {version.version}, the first, was refused: {version.reason}; correct the folder, or {accept}"
    withheld = (
        "its images are" if images is None else "one image of it is" if images == 1 else f"its {images:,} images are"
    )
    return (
        f"version {version.version} was refused and {withheld} withheld: {version.reason}; correct or remove images of "
        f"it, or {accept}"
    )
