"""Deletes what nothing points to and nothing has written for a while: from object store, registry and run folder.

Kept are the finished jobs of registered versions, of runs in MLflow but for those of nights, and those that other jobs
started from; data sets with a manifest, but for old ones and versions of them that nothing points to
(``unused_versions.py``); weights that a registered version has or a kept job started from; and versions of models that
were champion, or that something points to (``unused_challengers.py``). Of a finished job only the checkpoints are
deleted: its result and its weights remain, so the same command still finds it. Evaluations, reports in the store and
the audit chains of champions are never deleted, and neither is a job that an engine still lists as queued or running.
On this machine, reports are deleted that newer ones have replaced (``old_reports.py``).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conf import compose, schema
from conf.text import logger
from infra import store
from infra.errors import ConfigError, DataError, EffnetError, NotFoundError, PermanentError, first_line
from infra.launch.engine import ENGINES
from infra.launch.job import JobSpec, read_request
from infra.store import Entry
from tasks.jobs import LAUNCH_FILE
from tasks.registry.old_reports import find_old_reports
from tasks.registry.unused_challengers import find_unused as find_unused_challengers
from tasks.registry.unused_versions import MANIFEST_NAME, drop_marks, find_unused, find_unused_sets

if TYPE_CHECKING:
    from infra.tracking.registry import Version

log = logger()
DAY_S = 86400.0
RESULT, MANIFEST = "result.json", "manifest.json"
CHECKPOINTS = "checkpoints of a finished job"
UNFINISHED = "job without a result"
UNUSED_JOB = "job that no version, run or job points to"
UNUSED_WEIGHTS = "copy of weights that no version or job has"
UNFINISHED_DATA = "data set without a manifest"
UNUSED_DATA = "versions of a data set that nothing points to"
UNUSED_SET = "data set that nothing points to"
OLD_REPORT = "report on this machine that a newer one has replaced"
UNUSED_VERSION = "version that never was champion and that nothing points to"
_DIGEST = re.compile(r"[0-9a-f]{16}")  # name of the folder of a data set


@dataclass(frozen=True)
class Removal:
    """Objects that are deleted together.

    Attributes:
        folder: URI of the folder, or of the single object.
        what: What it is, one of the constants above.
        entries: The objects that are deleted.
        seen: All objects of the folder when it was listed: it is left alone if any of them has changed since.
    """

    folder: str
    what: str
    entries: tuple[Entry, ...]
    seen: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes that are freed."""
        return sum(entry.size for entry in self.entries)

    @property
    def modified(self) -> float:
        """When the folder was last written, in unix seconds."""
        return max(entry.modified for entry in self.seen)


def plan_removals(config: schema.Config, now: float) -> list[Removal]:
    """Returns what can be deleted; deletes nothing.

    Args:
        config: ``storage``, ``run_dir``, ``prune``, and ``launch`` for jobs of versions that did not record how they
            were submitted.
        now: The current time in unix seconds.

    Raises:
        ConfigError: MLflow knows none of the finished jobs, so it is not theirs.
        TransientError: MLflow or the store does not respond.
    """
    from infra.tracking import queries
    from infra.tracking.registry import WEIGHTS_TAG

    storage = config.storage
    versions = queries.list_models()
    references = queries.list_references()
    # A training of a night is kept by its version: its run stays in MLflow for good.
    uris = {version.tags.get("job_uri", "") for version in versions} | references.jobs
    jobs = _group(store.list_entries(store.join(storage, "jobs")), store.join(storage, "jobs"), depth=1)
    finished = {uri for uri, entries in jobs.items() if any(entry.uri == f"{uri}/{RESULT}" for entry in entries)}
    limit = now - config.prune.older_than_days * DAY_S
    recent = {uri for uri, entries in jobs.items() if _newest(entries) > limit}
    stopped = {uri for uri, entries in jobs.items() if uri not in finished and _has_early_result(uri, entries)}
    keys = {uri.rpartition("/")[2] for uri in uris}  # a key is a digest, the same after a store was moved
    of_nights = {uri.rpartition("/")[2] for uri in references.night_jobs}
    tracked = {uri for uri in finished if uri.rpartition("/")[2] in keys}
    evaluations = {uri for uri in finished if uri.rpartition("/")[2].startswith("evaluate-")}
    if finished - evaluations and not any(uri.rpartition("/")[2] in keys | of_nights for uri in finished):
        raise ConfigError(
            f"MLflow knows none of the {len(finished - evaluations)} finished jobs in {storage}, so "
            "it is not theirs (services.mlflow), and nothing is deleted"
        )
    silent: set[str] = set()
    idle = [uri for uri in jobs if uri not in finished | recent | stopped]
    listed = {uri for uri in idle if is_listed(uri, config, silent)}
    kept, started_from, manifests = _follow_lineage(jobs.keys(), tracked | recent | stopped | listed)
    removals = list(_job_removals(jobs, finished, kept, recent | stopped | evaluations | listed))
    nights = config.prune.keep_nights
    lost = find_unused_challengers(versions, storage, references, started_from, limit, nights)
    removals += map(_describe_version, lost)
    digests = {version.tags.get(WEIGHTS_TAG, "") for version in versions}
    for entry in store.list_entries(store.join(storage, "weights")):
        digest = entry.uri.rpartition("/")[2].partition(".")[0]
        if digest not in digests and entry.uri not in started_from and entry.modified <= limit:
            removals.append(Removal(entry.uri, UNUSED_WEIGHTS, (entry,), (entry,)))
    trained_on = {version.tags.get("data_manifest_sha256", "") for version in versions}
    removals += _data_removals(storage, manifests, trained_on, limit, nights)
    reports = find_old_reports(Path(config.run_dir).resolve(), limit)
    return removals + [Removal(folder, OLD_REPORT, files, files) for folder, files in reports]


def _data_removals(
    storage: str, manifests: set[str] | None, trained_on: set[str], limit: float, keep: int
) -> Iterator[Removal]:
    """Data sets that nothing points to, versions of others, and what was never finished.

    Args:
        storage: Root uri.
        manifests: Those that kept jobs were made for; None if they are not known.
        trained_on: Digests of the manifests that registered versions were trained on.
        limit: Unix seconds; what was written later is kept.
        keep: Number of data sets of each name that are kept.
    """
    data = _group(store.list_entries(store.join(storage, "data")), store.join(storage, "data"), depth=2)
    unused_sets = [] if manifests is None else find_unused_sets(data, manifests, trained_on, limit, keep)
    for folder, entries in data.items():
        if not _DIGEST.fullmatch(folder.rpartition("/")[2]):  # lists of frozen vals, and tars of the user
            continue
        if any(entry.uri == f"{folder}/{MANIFEST}" for entry in entries):
            if folder in unused_sets:
                yield Removal(folder, UNUSED_SET, drop_marks(entries), tuple(entries))
                continue
            if manifests is None:
                continue
            try:
                unused = find_unused(folder, entries, manifests, limit)
            except DataError as error:
                log.warning("the versions in %s are kept: %s", folder, first_line(error))
                continue
            if unused:
                yield Removal(folder, UNUSED_DATA, unused, tuple(entries))
        elif _newest(entries) <= limit and (unfinished := drop_marks(entries)):
            yield Removal(folder, UNFINISHED_DATA, unfinished, tuple(entries))


def is_listed(job_uri: str, config: schema.Config, silent: set[str]) -> bool:
    """Returns whether the engine of a job lists it as queued or running, or cannot be asked.

    A queue may hold a job for longer than folders are kept, and nothing writes the folder if its flow has died.

    Args:
        job_uri: Run folder.
        config: ``launch`` for a job that did not record its own, and ``run_dir``.
        silent: Engines that could not be asked; this call may add one, which is then not asked again.
    """
    try:
        launch = compose.from_yaml(schema.Launch, store.read(store.join(job_uri, LAUNCH_FILE)))
    except (PermanentError, compose.OverrideError):  # submitted by another version
        launch = config.launch
    engine, key = ENGINES[launch.engine], job_uri.rpartition("/")[2]
    if engine.LIMITED:  # it has no queue, and a job that runs writes its status every second
        return False
    if launch.engine in silent:
        return True
    try:
        return engine.find(JobSpec(key, key, "", job_uri, launch, Path(config.run_dir).resolve())) is not None
    except EffnetError as error:
        silent.add(launch.engine)
        log.warning("unfinished jobs of launch.engine=%s are kept: %s", launch.engine, first_line(error))
        return True


def remove(removals: Sequence[Removal], config: schema.Config, now: float) -> list[Removal]:
    """Deletes the objects of removals; returns those whose objects were deleted.

    A removal is skipped if something points to it by now, or if its folder has changed since it was listed. The other
    arguments are those of ``plan_removals``.

    Raises:
        PermanentError: Some could not be deleted, which is logged one by one; all others were.
        TransientError: MLflow or the store does not respond.
    """
    current, done, failed = plan_removals(config, now), list[Removal](), list[str]()
    for removal in removals:
        try:
            if removal in current and _remove(removal):
                done.append(removal)
        except PermanentError as error:
            log.warning("%s could not be deleted: %s", removal.folder, first_line(error))
            failed.append(f"{removal.folder}: {first_line(error)}")
    if failed:
        raise PermanentError(
            f"{len(failed)} of {len(removals)} could not be deleted, the first is {failed[0]}; {len(done)} were deleted"
        )
    return done


def _remove(removal: Removal) -> bool:
    from infra.tracking.removal import delete_version

    if removal.what != UNUSED_VERSION:
        return remove_unchanged(removal)
    name, _, number = removal.folder.rpartition("/")
    delete_version(name.removeprefix("models:/"), int(number))
    return True


def _describe_version(version: Version) -> Removal:
    from infra.tracking.removal import measure_files

    uri = f"models:/{version.name}/{version.version}"
    files = (Entry(uri, measure_files(version.name, version.version), version.created),)
    return Removal(uri, UNUSED_VERSION, files, files)


def remove_unchanged(removal: Removal) -> bool:
    """Deletes the objects of a removal; does nothing and returns False if its folder has changed since it was listed.

    Whoever resumes a job writes its ``config.yaml`` first, and whoever writes shards writes shards first, so a folder
    that has come back into use has changed. Only listed objects are deleted, never what is written meanwhile.
    """
    single = removal.what == UNUSED_WEIGHTS
    parent = removal.folder.rpartition("/")[0] if single else removal.folder
    present = [entry for entry in store.list_entries(parent) if not single or entry.uri == removal.folder]
    if tuple(present) != removal.seen:
        return False
    # One after the other: a process that ends in between leaves no part that claims to be whole. Of the rest, which
    # the next prune deletes, the order does not matter.
    stages = itertools.groupby(sorted(removal.entries, key=_stage), key=_stage)
    for _, entries in stages:
        store.delete_objects([entry.uri for entry in entries])
    if removal.what == OLD_REPORT:
        with suppress(OSError):  # a file has come into it meanwhile
            Path(removal.folder.removeprefix("file://")).rmdir()
    return True


def _stage(entry: Entry) -> int:
    """The place of an object in the order of deletion: what says that others are there goes before these.

    A job without a result is trained again, a version without a manifest does not exist, and a shard without an index
    is written again. A result without its weights, or an index without its shard, would be an error.
    """
    name = entry.uri.rpartition("/")[2]
    if name == RESULT or MANIFEST_NAME.fullmatch(name):
        return 0
    return 1 if "/index/" in entry.uri else 2


def _job_removals(
    jobs: Mapping[str, Sequence[Entry]], finished: set[str], kept: set[str], untouched: set[str]
) -> Iterator[Removal]:
    for uri, entries in jobs.items():
        if uri in untouched:
            continue
        if uri not in kept:
            what = UNUSED_JOB if uri in finished else UNFINISHED
            yield Removal(uri, what, tuple(entries), tuple(entries))
            continue
        checkpoints = tuple(entry for entry in entries if entry.uri.startswith(f"{uri}/checkpoints/"))
        if checkpoints and uri in finished:
            yield Removal(uri, CHECKPOINTS, checkpoints, tuple(entries))


def _has_early_result(uri: str, entries: Sequence[Entry]) -> bool:
    """Whether a job was stopped at a rung of a search, which is its result and may be continued."""
    return any(entry.uri.startswith(f"{uri}/until-") for entry in entries)


def _follow_lineage(jobs: Collection[str], roots: set[str]) -> tuple[set[str], set[str], set[str] | None]:
    """The jobs that are roots or that kept jobs started from; the weights that they started from; their manifests.

    The manifests are None if the request of a kept job cannot be read: then any version of any data set may be its.
    """
    kept: set[str] = set()
    weights: set[str] = set()
    manifests: set[str] = set()
    unread: list[str] = []
    waiting = [uri for uri in jobs if uri in roots]
    while waiting:
        uri = waiting.pop()
        if uri in kept:
            continue
        kept.add(uri)
        try:
            job = read_request(uri)
        except NotFoundError:  # it was never submitted
            continue
        except PermanentError as error:
            unread.append(first_line(error))
            continue
        manifests.add(job.manifest_uri)
        if (source := job.init_weights_uri) is not None:
            weights.add(source)
            waiting += [parent for parent in (source.rpartition("/")[0],) if parent in jobs]
    if unread:
        log.warning("all versions of data sets are kept, since %d jobs cannot be read: %s", len(unread), unread[0])
    return kept, weights, None if unread else manifests


def _group(entries: Sequence[Entry], root: str, depth: int) -> dict[str, list[Entry]]:
    """The objects by their folder ``depth`` levels below the root; objects above that level are in none.

    Raises:
        ConfigError: The store lists objects under another spelling of the root.
    """
    folders: dict[str, list[Entry]] = {}
    for entry in entries:
        if not entry.uri.startswith(f"{root}/"):
            raise ConfigError(f"{entry.uri} is not below {root}: write storage without `//`, `/./` and `..`")
        parts = entry.uri.removeprefix(f"{root}/").split("/")
        if len(parts) > depth:
            folders.setdefault("/".join([root, *parts[:depth]]), []).append(entry)
    return folders


def _newest(entries: Sequence[Entry]) -> float:
    return max(entry.modified for entry in entries)
