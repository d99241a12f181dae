"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line for people; ``text`` of a bad one ends with what to do."""

    mark: str
    topic: str
    text: str
