"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Finding:
    """One output line; the ``text`` of a warning or failure ends with the remedy."""

    mark: str
    topic: str
    text: str
