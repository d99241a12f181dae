"""The parts of the report: the table of them, and their objects in the store, one per experiment and profile."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from conf import compose, schema
from infra import machine, store
from infra.errors import DataError
from models.results import (
    ArchitectureResult,
    GalleryResult,
    LatencyResult,
    LinearResult,
    PhotographsResult,
    Provenance,
    ScalingResult,
    ShardResult,
    Summary,
    TransferPart,
    salvage,
)
from models.results.nights import NightsResult
from tasks.report.sections import architecture, latency, linear, maps, nights, photographs, scaling, transfer

# Where and how a flow runs; not part of the request.
NOT_IN_REQUEST = ("run_dir", "services", "launch", "gate", "prune", "budget")
_LINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # name of a line, which is part of the name of a file
MAX_DEPTH = 40  # of JSON that is shown; what is written here has 7
MAX_NUMBER = 1e30  # larger numbers are damage; ratios and products of smaller ones are finite
T = TypeVar("T")


@dataclass(frozen=True)
class ReportPart:
    """A part of the report: what makes it, and how it is read and shown."""

    name: str  # of its object in the store, of its template and of its anchor on the page
    title: str
    verb: str  # `effnet VERB` makes it
    result: type[Any]  # every field has a default: an absent part is shown as an empty result
    facts: Callable[[Any, Summary], dict[str, Any]]  # what the template needs


# In page order, between the sections of the reproduction and the provenance.
PARTS = (
    ReportPart("architecture", "Architecture search", "architecture", ArchitectureResult, architecture.facts),
    ReportPart("scaling", "Scaling study", "scaling", ScalingResult, scaling.facts),
    ReportPart("linear", "Frozen features", "linear", LinearResult, linear.facts),
    ReportPart("latency", "Latency", "latency", LatencyResult, latency.facts),
    ReportPart("transfer", "Transfer", "transfer", TransferPart, transfer.facts),
    ReportPart("maps", "Activation maps", "explain", GalleryResult, maps.facts),
    ReportPart("photographs", "Photographs", "photographs", PhotographsResult, photographs.facts),
    ReportPart("nights", "Nights", "nightly", NightsResult, nights.facts),
)
NAMES = tuple(part.name for part in PARTS)


@dataclass(frozen=True)
class Stored:
    """A result as read from the store, as far as it can be read."""

    result: Any
    provenance: Provenance
    problems: tuple[str, ...] = ()  # one line for each value that cannot be read


def uri(config: schema.Config, part: str) -> str:
    """URI of a part: one object per profile."""
    return store.join(config.storage, "reports", config.profile, f"{part}.json")


def line_uri(config: schema.Config, line: str) -> str:
    """URI of the part ``nights`` of one line of champions; the part itself is that of the last night of all lines."""
    return store.join(config.storage, "reports", config.profile, "nights", f"{line}.json")


def request_of(config: schema.Config) -> dict[str, Any]:
    """The part of the configuration that a result depends on."""
    request = {key: value for key, value in compose.to_dict(config).items() if key not in NOT_IN_REQUEST}
    # The address of a webhook is often a secret, and a request is published.
    request["nightly"] = {key: value for key, value in request["nightly"].items() if key != "alerts"}
    return request


def digest(facts: dict[str, Any]) -> str:
    """The sha256 of a JSON object, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def digests(data: Iterable[ShardResult]) -> dict[str, str]:
    """Digest of the manifest of each data set, by name; further folds of one are named after their number, from 1."""
    by_name: dict[str, str] = {}
    for shards in data:
        if shards.manifest_sha256 not in by_name.values():
            number = sum(name.partition(" ")[0] == shards.name for name in by_name)
            by_name[f"{shards.name} fold {number}" if number else shards.name] = shards.manifest_sha256
    return by_name


def publish_part(
    config: schema.Config, part: str, result: Any, data: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Writes a part with its provenance; replaces an earlier one.

    Args:
        config: Configuration of the flow that made the part.
        part: Name of one of :data:`PARTS`.
        result: Result of that part's type.
        data: Digest of each input by name, for the provenance: the manifest of a data set, weights, photographs.

    Returns:
        The JSON object as written.
    """
    if part not in NAMES:
        raise ValueError(f"{part!r} is not one of {', '.join(NAMES)}")
    provenance = Provenance(
        profile=config.profile,
        config=request_of(config),
        config_sha256=digest(request_of(config)),
        data_sha256=dict(data or {}),
        commit=machine.commit(),
        machine=machine.facts(),
        finished=machine.format_utc(time.time()),
    )
    content = {**asdict(result), **asdict(provenance)}
    store.write(uri(config, part), json.dumps(content, indent=1).encode())
    return content


def reusable_part(config: schema.Config, kind: type[T], data: Mapping[str, str]) -> T | None:
    """Returns a stored part that a flow would make again: same configuration, inputs and commit, and nothing missing.

    Args:
        config: Configuration of the flow that would make the part.
        kind: Type of the result of one of :data:`PARTS`.
        data: Digest of each input by name, as ``publish_part`` records them.
    """
    address = uri(config, next(part.name for part in PARTS if part.result is kind))
    if not store.exists(address):
        return None
    stored = _load(kind, address)
    made, commit = stored.provenance, machine.commit()
    # Code with changes that are not committed may draw anything.
    same = (made.config_sha256, made.data_sha256, made.commit) == (digest(request_of(config)), dict(data), commit)
    whole = not stored.problems and not stored.result.missing
    return stored.result if same and whole and commit and not commit.endswith("-dirty") else None


def load_parts(config: schema.Config) -> dict[str, Stored]:
    """All parts published so far, by name; one that cannot be read is an empty result with the problem."""
    addresses = ((part, uri(config, part.name)) for part in PARTS)
    return {part.name: _load(part.result, address) for part, address in addresses if store.exists(address)}


def load_lines(config: schema.Config) -> dict[str, Stored]:
    """The part ``nights`` of each line of champions, by name of the line; what cannot be read as in ``load_parts``."""
    folder = store.join(config.storage, "reports", config.profile, "nights")
    lines = {
        address.rpartition("/")[2].removesuffix(".json"): _load(NightsResult, address)
        for address in store.list_uris(folder)
    }
    last = uri(config, "nights")
    if store.exists(last):  # perhaps by an earlier version of effnet, which wrote no part per line
        stored = _load(NightsResult, last)
        if _LINE.fullmatch(stored.result.line):
            lines.setdefault(stored.result.line, stored)
    return lines


def _load(kind: type[Any], address: str) -> Stored:
    try:
        value = store.read_json(address)
    except DataError as error:  # a page without this part is worth more than no page, and the command replaces the part
        return Stored(kind(), Provenance(), (str(error),))
    return read_stored(kind, value, address)


def read_stored(kind: type[Any], value: Any, where: str) -> Stored:
    """Reads a result and its provenance from JSON, as far as possible.

    Args:
        kind: Type of the result.
        value: Any JSON value.
        where: Address of the value, for the problems.
    """
    cleaned = _clean(value)
    result, problems = salvage(kind, cleaned, where)
    provenance, more = salvage(Provenance, cleaned, where)
    return Stored(result or kind(), provenance or Provenance(), tuple(dict.fromkeys((*problems, *more))))


def _clean(value: Any, depth: int = 0) -> Any:
    """Cleans JSON for display: what no reader can use becomes null, a password in an address becomes ``***``."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {_clean_text(str(key)): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _clean_text(value)
    # The comparison is false for NaN too.
    return None if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER else value


def _clean_text(text: str) -> str:
    """Hides a password in an address, and replaces half a surrogate pair, which UTF-8 cannot hold."""
    return re.sub(r"://[^/?#\s]*@", "://***@", text.encode(errors="replace").decode())
