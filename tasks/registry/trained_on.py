"""Which images of a val split a version was trained on: its answers to them say nothing about other images.

It happens when a version was trained on another split of the same images, by another ``data.seed`` or
``data.val_share``. Equal images are found by their checksums in the manifests, so only among data sets that are encoded
alike. Prefect is not imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from conf.text import first_line, logger
from infra.errors import PermanentError
from models.results import ShardResult
from tasks.registry.gate import MIN_CLASS_IMAGES as MIN_IMAGES  # of val; fewer decide nothing
from tasks.registry.verdict import VAL_SHA256

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from infra.tracking.registry import Version
    from models.data.shards.manifest import Manifest

log = logger()


def find_seen(
    versions: Sequence[Version], shards: ShardResult, manifest: Manifest, val_sha256: str | None
) -> NDArray[np.bool_]:
    """Returns which images of val were trained on by one of some versions, or by those that they were fine-tuned from.

    Versions that were imported, or whose data are not in the store any more, are passed over.

    Args:
        versions: Versions that are evaluated on val.
        shards: The data set.
        manifest: Its manifest.
        val_sha256: Digest of its frozen val, which no version with the same tag was trained on; None without one.

    Returns:
        ``[images]``, in the order of the manifest.
    """
    import numpy as np

    from models.data.shards.manifest import Samples

    images = Samples(manifest, ["val"]).rows["xxh3"]
    seen = np.zeros(len(images), np.bool_)
    for version in _list_lineage(versions):
        # Train and val of one manifest are apart, and so are train and the frozen val of a line.
        if version.tags.get("data_manifest_sha256") == shards.manifest_sha256:
            continue
        if val_sha256 is not None and version.tags.get(VAL_SHA256) == val_sha256:
            continue
        if (trained_on := _load_images(version)) is not None:
            seen |= np.isin(images, trained_on)
    return seen


def can_compare(seen: NDArray[np.bool_]) -> bool:
    """Whether enough images of val remain without those that were trained on; also True if none were."""
    return not seen.any() or int((~seen).sum()) >= MIN_IMAGES


def describe(seen: NDArray[np.bool_], who: str = "one of the two") -> str:
    """Says how many images of val ``who`` was trained on; ``seen`` is that of ``find_seen``."""
    return (
        f"{who}, or a version that it was fine-tuned from, was trained on {int(seen.sum()):,} of the {len(seen):,} "
        "images of val"
    )


def _list_lineage(versions: Sequence[Version]) -> list[Version]:
    """Some versions and those that they were fine-tuned from, as far as the registry has them, each once."""
    lineage: dict[tuple[str, int], Version] = {}
    for version in versions:
        ancestor: Version | None = version
        while ancestor is not None and (ancestor.name, ancestor.version) not in lineage:
            lineage[ancestor.name, ancestor.version] = ancestor
            ancestor = _find_parent(ancestor)
    return list(lineage.values())


def _find_parent(version: Version) -> Version | None:
    """The version that one was fine-tuned from: by the tag of a night, or by the weights that its job started from."""
    from infra.tracking import queries, registry
    from tasks.nights.start import load_job

    with suppress(PermanentError):  # the run or the parent was deleted, or it is a job without a version, as below
        if version.run_id and (ref := queries.read_run(version.run_id).tags.get("parent")):
            return registry.resolve_version(ref)
    try:
        job = load_job(version)
    except PermanentError:  # imported, or its job was deleted
        return None
    if job.init_weights_uri is None or job.init_weights_sha256 is None:
        return None
    same = registry.find_weights(job.init_weights_sha256)
    if same:
        return next((one for one in same if "job_uri" in one.tags), same[0])
    uri = job.init_weights_uri.rpartition("/")[0]
    return replace(version, name=uri, run_id="", tags={"job_uri": uri})  # trained as a step of another command


def _load_images(version: Version) -> NDArray[np.uint64] | None:
    """Checksums of the images that a version was trained on; None if they are not known."""
    from models.data.shards import manifest as manifests
    from tasks.nights.start import load_job

    if "job_uri" not in version.tags:  # imported
        return None
    try:
        job = load_job(version)
        trained_on = manifests.load_verified(job.manifest_uri, job.manifest_sha256, job.leave_out)
    except PermanentError as error:
        ref = f"{version.name}/{version.version}"
        log.warning("whether %s was trained on images of val is not known: %s", ref, first_line(error))
        return None
    images: NDArray[np.uint64] = manifests.Samples(trained_on, job.split.split("+")).rows["xxh3"]
    return images
