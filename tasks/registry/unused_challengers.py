"""Versions that nights made, that never were champion, and that nothing points to; ``effnet prune`` may delete them.

Kept are versions with an alias, the newest one of a model, those that were champion, those in the record of a night of
late or of the last nights of the line, and those that a run in MLflow names or a kept job started from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from conf.text import logger
from infra import store
from infra.errors import EffnetError, first_line
from infra.store.json_objects import read_object
from tasks.registry.gate import REFUSED, TIED
from tasks.registry.verdict import STATE

if TYPE_CHECKING:
    from infra.tracking.queries import References
    from infra.tracking.registry import Version

log = logger()


def find_unused(
    versions: Sequence[Version],
    storage: str,
    references: References,
    started_from: Collection[str],
    limit: float,
    keep_nights: int,
) -> list[Version]:
    """Returns the versions that can be deleted.

    Args:
        versions: All versions of all models, with their aliases.
        storage: Root uri of the jobs, the audit chains and the records of the nights; versions of others are kept.
        references: What runs in MLflow point to.
        started_from: URIs of the weights that kept jobs started from.
        limit: Unix seconds; versions that were made later are kept.
        keep_nights: Number of the last nights of each line whose versions are kept.
    """
    from infra.tracking.registry import WEIGHTS_TAG

    newest: dict[str, int] = {}
    for version in versions:
        newest[version.name] = max(version.version, newest.get(version.name, 0))
    files = {uri.rpartition("/")[2].partition(".")[0] for uri in started_from}
    jobs = {uri.rpartition("/")[0] for uri in started_from}
    candidates = [
        version
        for version in versions
        if version.run_id in references.nights
        and version.tags.get(STATE) in (REFUSED, TIED)
        and version.tags.get("job_uri", "").startswith(f"{storage}/")
        and version.created <= limit
        and not version.aliases
        and version.version != newest[version.name]
        and f"{version.name}/{version.version}" not in references.versions
        and version.tags.get(WEIGHTS_TAG) not in files
        and version.tags.get("job_uri") not in jobs
    ]
    mentioned: dict[str, set[int] | None] = {}
    unused = []
    for version in candidates:
        if version.name not in mentioned:
            mentioned[version.name] = _read_mentioned(storage, version.name, limit, keep_nights)
        numbers = mentioned[version.name]
        if numbers is not None and version.version not in numbers:
            unused.append(version)
    return unused


def _read_mentioned(storage: str, name: str, limit: float, keep_nights: int) -> set[int] | None:
    """Versions that were champion, and those of nights that are kept; None, which is logged, if a record is damaged."""
    from infra.tracking import champions

    try:
        numbers = {number for move in champions.read_history(storage, name) for number in (move.old, move.new)}
        entries = sorted(store.list_entries(store.join(storage, "nights", name)), key=lambda entry: entry.uri)
        for entry in entries:
            if entry.modified > limit or entry in entries[-keep_nights:]:  # their names are dates
                numbers.add(read_object(entry.uri).get("version"))
    except EffnetError as error:
        log.warning("the versions of %s are kept: %s", name, first_line(error))
        return None
    return {number for number in numbers if number is not None}
