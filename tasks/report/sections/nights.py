"""The nightly fine-tunes: the versions of a line with their verdicts, and the moves of its champion."""

from __future__ import annotations

from typing import Any

from models.results import Summary
from models.results.nights import NightsResult
from models.statistics import standard_error


def facts(part: NightsResult, _summary: Summary) -> dict[str, Any]:
    """The last nights, the versions with their standard errors, the champion, the moves, and how many are not shown."""
    versions = [(version, standard_error(version.top1, version.n_val)) for version in part.versions]
    return {
        "line": part.line,
        "data": part.data,
        "verdict": part.verdict,
        "nights": part.nights,
        "versions": versions,
        "champion": next((pair for pair in versions if "champion" in pair[0].aliases), None),
        "older_versions": max(0, (part.versions_total or 0) - len(part.versions)),
        "moves": part.moves,
        "older_moves": max(0, (part.moves_total or 0) - len(part.moves)),
    }
