"""Table 2 and Figures 1 and 5: B0 to B7, ours beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup

from models import paper
from models.paper import Table2Row
from models.results import Summary, VariantRow
from models.statistics import standard_error
from tasks.report.charts import scatter
from tasks.report.numbers import is_percent, plus_minus, si

SIZES = ("params", "multiply_adds", "paper_params", "paper_multiply_adds")


@dataclass(frozen=True)
class FamilyRow:
    """One network: as trained here, and its row of Table 2."""

    short: str
    ours: VariantRow | None
    error: float | None  # standard error of our top-1, in points
    paper: Table2Row | None
    ratios: dict[str, float | None]  # sizes relative to our B0


def facts(summary: Summary) -> dict[str, Any]:
    """The rows of Table 2, the two figures, and the data that the family was trained on."""
    rows = variant_rows(summary)
    return {
        "rows": rows,
        "figures": _figures(rows),
        "trained_on": trained_on(summary),
        "done": [row for row in rows if row.ours],
    }


def trained_on(summary: Summary) -> list[str]:
    """Names of the data sets that the family was trained on, not fine-tuned."""
    fine_tuned_on = {row.data for row in summary.transfer}
    return [shards.name for shards in summary.data if shards.name not in fine_tuned_on]


def variant_rows(summary: Summary) -> list[FamilyRow]:
    """Joins every network of the family, and any other that was trained, with its row of Table 2."""
    trained = {row.name: row for row in summary.variants}
    printed = {row.name: row for row in paper.EFFICIENTNETS}
    base = trained.get(paper.EFFICIENTNETS[0].name)
    rows = []
    for name in [*printed, *(name for name in trained if name not in printed)]:
        ours = trained.get(name)
        error = standard_error(ours.top1, ours.n_val) if ours else None
        short = short_name(name) if name in printed else name
        ratios = {key: _ratio(ours, base, key) for key in SIZES}
        rows.append(FamilyRow(short, ours, error, printed.get(name), ratios))
    return rows


def _ratio(ours: VariantRow | None, base: VariantRow | None, key: str) -> float | None:
    size, base_size = getattr(ours, key, 0), getattr(base, key, 0)
    return size / base_size if size and base_size else None


def short_name(name: str) -> str:
    """``B3`` for ``efficientnet_b3``; any other name as it is."""
    return name.removeprefix("efficientnet_").upper() if name.startswith("efficientnet_b") else name


def _figures(rows: Sequence[FamilyRow]) -> list[dict[str, Any]]:
    """Figures 1 and 5: the run's panel beside the paper's, over parameters and over multiply-adds."""
    figures = []
    for number, key, unit in ((1, "params", "parameters"), (5, "multiply_adds", "multiply-adds")):
        dots = _our_dots(rows, key, unit)
        figures.append(
            {
                "number": number,
                "unit": unit,
                "ours": scatter.scatter(dots, unit, f"This run: top-1 over {unit}", [scatter.joined("run", dots)]),
                "paper": _paper_panel(key, unit),
            }
        )
    return figures


def _our_dots(rows: Sequence[FamilyRow], key: str, unit: str) -> list[scatter.Dot]:
    dots = []
    for row in rows:
        if row.ours and is_percent(row.ours.top1):
            size = getattr(row.ours, key)
            accuracy = plus_minus(row.ours.top1, row.error, row.ours.n_val)
            hover = f"{row.short}: top-1 {accuracy}, {size:,.0f} {unit}"
            dots.append(scatter.Dot(row.short[:24], size, row.ours.top1, row.error or 0.0, "run", hover))
    return [dot for dot in dots if dot.x]


@cache  # it never changes, and placing 24 names is the slow part of the page
def _paper_panel(key: str, unit: str) -> Markup:
    dots = []
    for row in (*paper.EFFICIENTNETS, *paper.RIVALS):
        x = row.params_m * 1e6 if key == "params" else (row.flops_b or 0) * 1e9
        label = short_name(row.name)
        hover = f"{label}: top-1 {row.top1} %, {si(x)} {unit}"
        dots.append(scatter.Dot(label, x, row.top1, 0.0, "paper" if row.ours else "rival", hover))
    line = scatter.joined("paper", dots[: len(paper.EFFICIENTNETS)])
    return scatter.scatter(dots, unit, f"The paper: top-1 over {unit}", [line])
