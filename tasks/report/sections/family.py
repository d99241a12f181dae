"""Table 2 and Figures 1 and 5: B0 to B7, ours beside the paper's."""

from __future__ import annotations

from functools import cache

from markupsafe import Markup

from models import paper
from tasks.report.charts import scatter
from tasks.report.numbers import plus_minus, si
from tasks.report.sections.values import RUN, Json, entries, is_percent, scored

SIZE = ("params", "multiply_adds", "resolution")
FULL_SIZE = ("paper_params", "paper_multiply_adds")
NUMBERS = (*SIZE, *FULL_SIZE, "minutes", "images_per_s", "epochs")
TEXTS = ("name", "data", *RUN, "registered_name", "registered_version")


def facts(summary: Json) -> Json:
    """The rows of Table 2, the two figures, and the data that the family was trained on."""
    rows = variant_rows(summary)
    tuned = [entry.get("data") for entry in entries(summary, "transfer")]
    names = [entry.get("name") for entry in entries(summary, "data")]
    return {
        "rows": rows,
        "figures": _figures(rows),
        "trained_on": [str(name) for name in names if name and name not in tuned],
        "done": [row for row in rows if row["ours"] and row["ours"]["top1"] is not None],
    }


def variant_rows(summary: Json) -> list[Json]:
    """Joins every network of the family, and any other that ran, with its row of Table 2."""
    ran = {str(entry.get("name") or "unnamed"): scored(entry, NUMBERS, TEXTS) for entry in entries(summary, "variants")}
    printed = {row.name: row for row in paper.EFFICIENTNETS}
    base = ran.get(paper.EFFICIENTNETS[0].name, {})
    rows: list[Json] = []
    for name in [*printed, *(name for name in ran if name not in printed)]:
        ours = ran.get(name)
        ratios = {
            key: ours[key] / base[key] if ours and ours[key] and base.get(key) else None
            for key in (*SIZE[:2], *FULL_SIZE)
        }
        short = short_name(name) if name in printed else name
        rows.append({"short": short, "ours": ours, "paper": printed.get(name), "ratios": ratios})
    return rows


def short_name(name: str) -> str:
    """``B3`` for ``efficientnet_b3``; any other name as it is."""
    return name.removeprefix("efficientnet_").upper() if name.startswith("efficientnet_b") else name


def _figures(rows: list[Json]) -> list[Json]:
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


def _our_dots(rows: list[Json], key: str, unit: str) -> list[scatter.Dot]:
    dots = []
    for row in rows:
        ours = row["ours"]
        if ours and ours[key] and is_percent(ours["top1"]):
            accuracy = plus_minus(ours["top1"], ours["se1"], ours["n_val"])
            hover = f"{row['short']}: top-1 {accuracy}, {ours[key]:,.0f} {unit}"
            label, error = row["short"][:24], ours["se1"] or 0.0
            dots.append(scatter.Dot(label, ours[key], ours["top1"], error, "run", hover))
    return dots


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
