"""Where a night starts: the line of champions, the version that is fine-tuned, and the data it was trained on.

Prefect is not imported, which takes seconds.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from conf import schema
from conf.data_set import IN_PLACE
from conf.nightly import FIRST_VAL
from conf.text import logger
from infra.errors import ConfigError, NotFoundError, PermanentError
from infra.launch.job import read_request
from tasks.registry.verdict import VAL

if TYPE_CHECKING:
    from infra.tracking.registry import Version
    from models.data.shards.manifest import Manifest

log = logger()


@dataclass(frozen=True)
class NightStart:
    """Where a night starts.

    Attributes:
        line: Registered model that the challenger becomes a version of.
        parent: ``NAME/VERSION`` that is fine-tuned.
        continues: Whether the parent is the champion of the line, so that its classifier is kept.
        data: Data settings of the night: those of ``transfer.data``, with the val of the line if the set grows.
    """

    line: str
    parent: str
    continues: bool
    data: schema.Data


def resolve_start(config: schema.Config) -> NightStart:
    """Returns where a night of this configuration starts; raises the errors of ``line.find_start``."""
    from infra.tracking import registry

    data, model = prepare_data(config), config.nightly.model
    base = registry.resolve_version(f"{model}@{registry.CHAMPION}")
    line = model if base.tags.get("dataset") == data.name else f"{model}-{data.name}"
    if data.frozen_val is not None:
        present = base.tags.get(VAL, FIRST_VAL) if line == model else FIRST_VAL
        if present != data.frozen_val and present != FIRST_VAL:
            raise ConfigError(f"{model} is the line of nightly.val={present}, not {data.frozen_val}")
        if present != data.frozen_val:
            line = f"{line}-{data.frozen_val}"
    champion = registry.champion(line)
    parent = champion or base
    return NightStart(line, f"{parent.name}/{parent.version}", champion is not None, data)


def prepare_data(config: schema.Config) -> schema.Data:
    """Returns ``transfer.data`` as a night takes them: of a set that grows, val is frozen and new images are appended.

    They are not appended with ``transfer.data.append=false``, nor where that is impossible: to tars in place, and with
    ``transfer.data.limit``.
    """
    from models.data.sources import catalog

    data, val = config.transfer.data, config.nightly.val
    if data.frozen_val not in (None, val):
        raise ConfigError(
            f"transfer.data.frozen_val is {data.frozen_val}, nightly.val is {val}; give nightly.val alone"
        )
    if data.folds > 1:
        raise ConfigError(f"transfer.data.folds is {data.folds}, and a night has one val; give transfer.data.folds=1")
    if not catalog.find(data.source).grows:
        return data
    can_append = data.shards != IN_PLACE and data.limit is None
    return replace(data, frozen_val=val, append=can_append if data.append is None else data.append)


def load_champion_data(ref: str) -> Manifest | None:
    """The data set that a version was trained on; None if the store has it no more, which is logged."""
    from infra.tracking import registry
    from models.data.shards import manifest as manifests

    try:
        job = load_job(registry.resolve_version(ref))
        return manifests.load_verified(job.manifest_uri, job.manifest_sha256, job.leave_out)
    except PermanentError as error:
        log.warning("the data that %s was trained on cannot be read, so the new ones are not compared: %s", ref, error)
        return None


def accept_data(version: Version) -> str:
    """Accepts the images that a champion was trained on, if a night has refused them, or ended before it accepted them.

    Otherwise the champion that a user has promoted would be continued without them.

    Returns:
        ``DATA/0002-5f0c9a31``, the version of the data; empty if it was accepted, or if its job is not in the store.

    Raises:
        DataError: The mark of the version is damaged.
        TransientError: The store does not respond; the same call resumes later.
    """
    from models.data.shards import acceptance, versions

    try:
        job = load_job(version)
    except PermanentError:  # imported, or trained by another version of effnet
        return ""
    mark = acceptance.find(job.manifest_uri)
    if mark is None:
        return ""
    versions.accept(job.manifest_uri)
    return f"{job.data_name}/{mark.version}"


def withdraw_data(version: Version, champion: Version, why: str) -> str:
    """Refuses the images that were added to the data of a version, after a user has taken it back.

    Otherwise the next night would train on them again, and promote what comes of it.

    Args:
        version: The version that was taken back.
        champion: The one in its place. Nothing is refused that it was trained on.
        why: Reason.

    Returns:
        A line that says what is withheld and how it can be used, or why nothing is; empty if its data were not
        appended to, or if its job is not in the store.

    Raises:
        DataError: The data of the version are damaged.
        TransientError: The store does not respond; the same call resumes later.
    """
    try:
        job = load_job(version)
    except PermanentError:  # imported, or trained by another version of effnet
        return ""
    if job.manifest_uri.endswith("/manifest.json"):
        return ""
    from models.data.shards import manifest as manifests
    from models.data.shards import refusals, versions

    digest = manifests.source_digest(job.manifest_uri)
    with suppress(PermanentError):
        if versions.has_images_of(manifests.load(load_job(champion).manifest_uri)[1], digest):
            return ""
    ref = f"{version.name}/{version.version}"
    mark = versions.withdraw(job.manifest_uri, f"{ref}, which was trained on them, was taken back: {why}")
    if mark is None:
        return (
            f"the images that were added for {ref} stay in the data {job.data_name}, since others were appended to "
            "them: to remove them, correct the folder and run a night with transfer.data.append=false"
        )
    return f"of the data {job.data_name}, {refusals.describe_withheld(job.data_name, mark)}"


def load_job(version: Version) -> schema.Job:
    """The job that trained a version.

    Raises:
        NotFoundError: The store has it no more, or the version was imported.
        ConfigError: It was requested by another version of effnet.
    """
    if "job_uri" not in version.tags:
        raise NotFoundError(f"{version.name}/{version.version} was trained by no job")
    return read_request(version.tags["job_uri"])
