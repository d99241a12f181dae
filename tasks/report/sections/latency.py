"""Table 4: inference latency on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from models import paper
from models.paper import PRINTED_NAMES, Table4Row
from models.results import LatencyResult, LatencyRow, LatencyTable, Speedup, Summary
from tasks.report.charts import scatter
from tasks.report.numbers import NIL
from tasks.report.sections.family import short_name


@dataclass(frozen=True)
class Pair:
    """Two networks, as measured and as printed."""

    ours: str
    rival: str
    measured: float | None
    speedup: float | None  # as printed
    printed: Table4Row | None


def facts(part: LatencyResult, _summary: Summary) -> dict[str, Any]:
    """On one thread, as in the paper, and on all cores if that was measured; the pairs beside the printed ones."""
    tables = [table for table in (part, part.all_cores) if table and table.rows]
    return {"tables": [_table(table) for table in tables], "pairs": _pairs(part)}


def _table(table: LatencyTable) -> dict[str, Any]:
    """The networks as measured, with their charts on one axis."""
    highest = max(max(row.batch1_ms, row.batch1_ms_high) for row in table.rows)
    span = (0.0, highest) if highest > 0 else None
    rows = [(row, short_name(row.network), _chart(row, span)) for row in table.rows]
    axis = scatter.interval_axis(span) if span else ""
    return {"threads": table.threads, "n": table.n, "rows": rows, "axis": axis}


def _chart(row: LatencyRow, span: scatter.Interval | None) -> Markup:
    if span is None:
        return NIL
    low, high = row.batch1_ms_low, row.batch1_ms_high
    hover = f"{short_name(row.network)}: {row.batch1_ms:.1f} ms, {low:.1f} to {high:.1f} ms"
    return scatter.interval(row.batch1_ms, (low, high), span, None, hover)


def _pairs(part: LatencyResult) -> list[Pair]:
    """Returns the printed pairs with the measured values where they exist, then the other measured pairs."""
    measured = {(pair.ours, PRINTED_NAMES.get(pair.rival, pair.rival)): pair for pair in part.speedups}
    pairs = []
    for printed in paper.TABLE4:
        ours = measured.pop((printed.ours, printed.rival), None)
        ratio = ours.measured if ours else None
        pairs.append(Pair(short_name(printed.ours), printed.rival, ratio, printed.speedup, printed))
    return pairs + [_unprinted(pair) for pair in measured.values()]


def _unprinted(pair: Speedup) -> Pair:
    return Pair(short_name(pair.ours), pair.rival, pair.measured, pair.paper, None)
