"""How every benchmark reports: a table for people, or with ``--json`` one object for programs."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from infra import machine


@dataclass(frozen=True)
class Row:
    """One measured value, a median unless its name says otherwise."""

    name: str
    value: float
    unit: str


@dataclass
class Report:
    """What one run of a benchmark found. ``ratios`` are named ours/rival, or as their key says."""

    n: int
    rows: list[Row] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, values: Sequence[float], unit: str) -> float:
        """Adds the median of ``values`` as a row and returns it."""
        median = statistics.median(values)
        self.rows.append(Row(name, median, unit))
        return median


def parser(about: str, n: int) -> argparse.ArgumentParser:
    """The options that every benchmark has: ``--json`` and ``--n``."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    made.add_argument("--n", type=int, default=n, help=f"counted runs of each side (default {n})")
    return made


def arguments(about: str, n: int) -> argparse.Namespace:
    """The values of these options."""
    return parser(about, n).parse_args()


def show(report: Report, as_json: bool) -> None:
    """Prints the report."""
    if as_json:
        print(json.dumps({"machine": machine.facts(), **asdict(report)}))
        return
    print(f"n = {report.n}; medians; {machine.facts()['cpu']}, {machine.facts()['cores']} cores")
    for row in report.rows:
        print(f"  {row.name:44} {row.value:10.3f} {row.unit}")
    for name, ratio in report.ratios.items():
        print(f"  {name:44} {ratio:10.3f}")
    for note in report.notes:
        print(f"  {note}")
