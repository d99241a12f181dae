"""The experiments' results, one JSON object each in the store; the report is made of whichever are there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from conf import compose, schema
from infra import machine, store
from infra.store.json_objects import read_object
from models.results import ShardResult

# Where and how something runs, not what is asked for.
ELSEWHERE = ("run_dir", "services", "dispatch", "launch")
PARTS = ("scaling", "architecture", "transfer", "maps", "latency")


def uri(config: schema.Config, part: str) -> str:
    """Where a part's facts lie: one object for each profile."""
    return store.join(config.storage, "reports", config.profile, f"{part}.json")


def request_of(config: schema.Config) -> dict[str, Any]:
    """What a result depends on, as far as the configuration says it."""
    return {key: value for key, value in compose.to_dict(config).items() if key not in ELSEWHERE}


def digest(facts: dict[str, Any]) -> str:
    """The sha256 of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def digests(data: Iterable[ShardResult]) -> dict[str, str]:
    """Name and manifest's digest of data sets."""
    return {shards.name: shards.manifest_sha256 for shards in data}


def publish_part(
    config: schema.Config, part: str, facts: dict[str, Any], data: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Writes a part, with where it comes from; it replaces the one before it.

    Args:
        config: of the flow that made it.
        part: one of :data:`PARTS`.
        facts: JSON.
        data: name and manifest's digest of the data sets that it was made of, for the provenance.

    Returns:
        The facts as they were written.
    """
    if part not in PARTS:
        raise ValueError(f"{part!r} is none of {', '.join(PARTS)}")
    whole = {
        **facts,
        "profile": config.profile,
        "config": request_of(config),
        "config_sha256": digest(request_of(config)),
        "data_sha256": dict(data or {}),
        "commit": machine.commit(),
        "machine": machine.facts(),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    store.write(uri(config, part), json.dumps(whole, indent=1).encode())
    return whole


def load_parts(config: schema.Config) -> dict[str, dict[str, Any]]:
    """All parts that have been left so far, by name."""
    there = ((part, uri(config, part)) for part in PARTS)
    return {part: read_object(address) for part, address in there if store.exists(address)}
