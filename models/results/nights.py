"""Results of the nightly fine-tunes: the versions of one line of champions, and every move of its champion."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NightVersion:
    """A version of the line, with the comparison that decided about it.

    Attributes:
        registered: UTC.
        parent: ``NAME/VERSION`` that was fine-tuned.
        top1: Percent of the val images, ``n_val`` of them, that it classifies correctly.
        compared_with: Version that was champion then; None if there was none.
        difference: Top-1 minus that of ``compared_with`` on the same images, in points.
        lower_bound: Lower bound of the one-sided 95 % interval of ``difference``.
        verdict: ``promoted``, ``tied``, ``refused`` or ``pending``.
        reason: The verdict in words, with the number that decided.
    """

    version: int
    registered: str = ""
    parent: str = ""
    aliases: tuple[str, ...] = ()
    top1: float | None = None
    n_val: int | None = None
    compared_with: int | None = None
    difference: float | None = None
    lower_bound: float | None = None
    verdict: str = ""
    reason: str = ""
    mlflow_url: str = ""


@dataclass(frozen=True, kw_only=True)
class ChampionChange:
    """A move of the alias ``champion``; ``old`` is None for the first."""

    old: int | None
    new: int | None
    when: str
    who: str
    why: str


@dataclass(frozen=True, kw_only=True)
class NightOutcome:
    """A night of the line, however it ended.

    Attributes:
        date: Local date on which it started.
        outcome: ``promoted``, ``tied``, ``refused``, ``waiting``, ``skipped``, or how it failed.
        verdict: The reason in words, with the number that decided.
        version: Version that it judged or skipped; None if it came to none.
        finished: UTC.
    """

    date: str
    outcome: str = ""
    verdict: str = ""
    version: int | None = None
    finished: str = ""


@dataclass(frozen=True, kw_only=True)
class NightsResult:
    """The line of champions as the last night left it; nights, versions and moves are newest first.

    Attributes:
        verdict: Outcome of the last night in words.
        nights: The last nights, those that failed among them.
        versions_total: Number of versions in the registry, of which ``versions`` holds the newest.
    """

    line: str = ""
    data: str = ""
    verdict: str = ""
    nights: tuple[NightOutcome, ...] = ()
    versions: tuple[NightVersion, ...] = ()
    versions_total: int | None = None
    moves: tuple[ChampionChange, ...] = ()
    moves_total: int | None = None
    missing: tuple[str, ...] = ()
    command: str = ""
