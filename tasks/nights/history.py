"""The records of nights: one per line and date in the store.

::

    STORAGE/nights/LINE/2026-11-29.json   outcome, verdict, version, start and end, id of the flow run
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import islice

from conf.text import first_line, logger
from infra import store
from infra.errors import DataError, NotFoundError
from infra.store.json_objects import read_object
from tasks.nights.line import SKIPPED

log = logger()
RUNNING, FAILED, DIVERGED, CANCELLED, CRASHED = "running", "failed", "diverged", "cancelled", "crashed"
UNSUCCESSFUL = (RUNNING, FAILED, DIVERGED, CANCELLED, CRASHED)


@dataclass(frozen=True)
class NightRecord:
    """A night, as it is stored.

    Attributes:
        outcome: Outcome of the gate, ``skipped``, ``running``, or how the night failed.
        verdict: The reason in words, with the number that decided.
        version: Version that it judged or skipped; None if it came to none.
        started: UTC.
        finished: UTC; empty while it runs.
        run: Id of its flow run in Prefect.
        earlier: Record of the same date that this one replaces only if the night comes to another result.
        alert: Alert about its end that no receiver has yet.
        unsent: Alerts from before its end, and of earlier nights of the same date, that no receiver has yet.
        others: Ids of other flow runs of this date, whose record this is too.
    """

    outcome: str
    verdict: str = ""
    version: int | None = None
    started: str = ""
    finished: str = ""
    run: str = ""
    earlier: NightRecord | None = None
    alert: str | None = None
    unsent: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def list_alerts(self) -> tuple[str, ...]:
        """All alerts that no receiver has yet, oldest first."""
        return self.unsent if self.alert is None or self.alert in self.unsent else (*self.unsent, self.alert)


@dataclass(frozen=True)
class Night:
    """A night that runs: its line, where its record is, and the record as it was written at the start."""

    line: str
    uri: str
    record: NightRecord


def read_nights(storage: str, line: str, count: int) -> list[tuple[str, NightRecord]]:
    """Returns the last nights of a line with their dates, newest first; without records that cannot be read."""
    uris = store.list_uris(store.join(storage, "nights", line))
    newest = ((uri.rpartition("/")[2].removesuffix(".json"), read_record(uri)) for uri in sorted(uris, reverse=True))
    return list(islice(((date, record) for date, record in newest if record is not None), count))


def list_lines(storage: str) -> list[str]:
    """Returns the lines that have had a night."""
    root = store.join(storage, "nights")
    return sorted({uri.removeprefix(f"{root}/").partition("/")[0] for uri in store.list_uris(root)})


def count_skips_before(uri: str) -> int:
    """Returns the number of nights that skipped, since the last one that did not, before the night of this record."""
    count = 0
    for other in reversed([other for other in store.list_uris(uri.rpartition("/")[0]) if other < uri]):
        record = read_record(other)
        if record is not None and record.outcome != SKIPPED:
            break
        count += record is not None
    return count


def take_over(record: NightRecord, present: NightRecord | None) -> NightRecord:
    """Returns a record that replaces another one of its date, with the alerts and the flow runs of that one."""
    if present is None:
        return record
    runs = (run for run in (*present.others, present.run) if run not in ("", record.run))
    return replace(record, unsent=present.list_alerts(), others=tuple(dict.fromkeys(runs)))


def read_record(uri: str) -> NightRecord | None:
    """Returns the record of a night; None if there is none, or if it is damaged or of a newer effnet (logged)."""
    try:
        body = read_object(uri, outcome=str, verdict=str)
        lists = {key: tuple(body.get(key, ())) for key in ("unsent", "others")}
        earlier = body.pop("earlier", None)
        if earlier is not None:
            earlier = NightRecord(**earlier | dict.fromkeys(lists, ()))
        return NightRecord(**body | lists, earlier=earlier)
    except NotFoundError:  # a user may have deleted a damaged one, as the message says
        return None
    except (DataError, TypeError) as error:
        log.warning(
            "%s is skipped: not the record of a night, or that of a newer effnet (%s); delete it, or upgrade",
            uri,
            first_line(error),
        )
        return None


def write_record(uri: str, record: NightRecord) -> None:
    """Writes the record of a night, without what is empty."""
    store.write_json(uri, {key: value for key, value in asdict(record).items() if value not in (None, ())})
