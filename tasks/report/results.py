"""Report parts: one JSON object in the store per experiment; the report uses those that exist."""

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

# Where and how a flow runs; not part of the request.
NOT_IN_REQUEST = ("run_dir", "services", "launch")
PARTS = ("scaling", "architecture", "transfer", "maps", "latency")


def uri(config: schema.Config, part: str) -> str:
    """URI of a part: one object per profile."""
    return store.join(config.storage, "reports", config.profile, f"{part}.json")


def request_of(config: schema.Config) -> dict[str, Any]:
    """The part of the configuration that a result depends on."""
    return {key: value for key, value in compose.to_dict(config).items() if key not in NOT_IN_REQUEST}


def digest(facts: dict[str, Any]) -> str:
    """The sha256 of a JSON object, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def digests(data: Iterable[ShardResult]) -> dict[str, str]:
    """Digest of the manifest of each data set, by name."""
    return {shards.name: shards.manifest_sha256 for shards in data}


def publish_part(
    config: schema.Config, part: str, facts: dict[str, Any], data: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Writes a part with its provenance; replaces an earlier one.

    Args:
        config: Configuration of the flow that made the part.
        part: One of :data:`PARTS`.
        facts: Content of the part, as JSON values.
        data: Manifest digest of each data set that was used, by name, for the provenance.

    Returns:
        The part as written.
    """
    if part not in PARTS:
        raise ValueError(f"{part!r} is not one of {', '.join(PARTS)}")
    content = {
        **facts,
        "profile": config.profile,
        "config": request_of(config),
        "config_sha256": digest(request_of(config)),
        "data_sha256": dict(data or {}),
        "commit": machine.commit(),
        "machine": machine.facts(),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    store.write(uri(config, part), json.dumps(content, indent=1).encode())
    return content


def load_parts(config: schema.Config) -> dict[str, dict[str, Any]]:
    """All parts published so far, by name."""
    addresses = ((part, uri(config, part)) for part in PARTS)
    return {part: read_object(address) for part, address in addresses if store.exists(address)}
