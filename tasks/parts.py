"""The experiments' results, one JSON object each in the store; the report is made of whichever are there."""

from __future__ import annotations

import json
import time
from typing import Any

from conf import schema
from infra import machine, store

PARTS = ("scaling", "architecture", "transfer", "maps", "latency")


def uri(config: schema.Config, part: str) -> str:
    """Where a part's facts lie: one object for each profile."""
    return store.join(config.storage, "reports", config.profile, f"{part}.json")


def leave(config: schema.Config, part: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes a part, with where it comes from; it replaces the one before it.

    Returns:
        The facts as they were written.
    """
    if part not in PARTS:
        raise ValueError(f"{part!r} is none of {', '.join(PARTS)}")
    whole = {
        **facts,
        "profile": config.profile,
        "commit": machine.commit(),
        "machine": machine.facts(),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    store.write(uri(config, part), json.dumps(whole, indent=1).encode())
    return whole


def gather(config: schema.Config) -> dict[str, dict[str, Any]]:
    """All parts that have been left so far, by name."""
    there = ((part, uri(config, part)) for part in PARTS)
    return {part: store.read_json(address) for part, address in there if store.exists(address)}
