"""Table 4: how long one image takes on a processor."""

from __future__ import annotations

import re

from models import paper
from tasks.report.charts import scatter
from tasks.report.numbers import NIL, plain
from tasks.report.sections.family import short_name
from tasks.report.sections.values import Json, entries, mapping, typed

NUMBERS = (
    "resolution",
    "params",
    "multiply_adds",
    "batch1_ms",
    "batch1_ms_low",
    "batch1_ms_high",
    "images_per_s",
    "throughput_batch",
    "paper_top1",
    "paper_latency_s",
)


def facts(part: Json) -> Json:
    """On one thread, as the paper's, and on all cores where that was measured too; the pairs beside the printed."""
    tables = [_table(part)]
    if entries(mapping(part, "all_cores"), "rows"):
        tables.append(_table(mapping(part, "all_cores")))
    return {"tables": [table for table in tables if table["rows"]], "pairs": _pairs(part)}


def _table(part: Json) -> Json:
    """The networks as measured, with their charts on one axis."""
    rows = [typed(entry, NUMBERS, ("network",)) for entry in entries(part, "rows")]
    ends = [row[key] for row in rows for key in ("batch1_ms", "batch1_ms_high") if row[key] is not None]
    span = (0.0, max(ends)) if ends and max(ends) > 0 else None
    for row in rows:
        row["short"] = short_name(row["network"] or "unnamed")
        row["chart"] = NIL
        if span and row["batch1_ms"] is not None:
            low, high = (row["batch1_ms"] if row[key] is None else row[key] for key in NUMBERS[4:6])
            hover = f"{row['short']}: {plain(row['batch1_ms'], '.1f')} ms, {low:.1f} to {high:.1f} ms"
            row["chart"] = scatter.interval(row["batch1_ms"], (low, high), span, None, hover)
    numbers = typed(part, ("threads", "n"), ())
    axis = scatter.interval_axis(span) if span else ""
    return numbers | {"rows": rows, "axis": axis}


def _pairs(part: Json) -> list[Json]:
    """Returns the printed pairs with the measured values where they exist, then the other measured pairs."""
    ours = [typed(entry, ("measured", "paper"), ("ours", "rival")) for entry in entries(part, "speedups")]
    rows: list[Json] = []
    for printed in paper.TABLE4:
        same = [
            pair
            for pair in ours
            if _bare(pair["ours"]) == _bare(printed.ours) and _bare(pair["rival"]) == _bare(printed.rival)
        ]
        rows.append(
            {
                "printed": printed,
                "measured": same[0]["measured"] if same else None,
                "ours": short_name(printed.ours),
                "rival": printed.rival,
                "speedup": printed.speedup,
            }
        )
        ours = [pair for pair in ours if not any(pair is match for match in same)]
    return rows + [
        {
            "printed": None,
            "measured": pair["measured"],
            "ours": short_name(pair["ours"] or "unnamed"),
            "rival": pair["rival"],
            "speedup": pair["paper"],
        }
        for pair in ours
    ]


def _bare(name: str | None) -> str:
    """``resnet152`` for ``ResNet-152`` and ``resnet_152``, ``b1`` for ``efficientnet_b1`` and ``EfficientNet-B1``."""
    return re.sub(r"[^a-z0-9]", "", (name or "").lower()).removeprefix("efficientnet")
