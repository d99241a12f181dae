"""The scaling study: Table 3 and Figures 3, 4 and 8, single dimensions against compound scaling."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import groupby
from typing import Any

from markupsafe import Markup

from models.experiments import scaling_study
from tasks.report.charts import scatter
from tasks.report.numbers import plus_minus
from tasks.report.sections.values import Json, entries, is_percent, mapping, scored, typed

DIMENSIONS = ("depth", "width", "resolution")
LETTERS = {"width": "w", "depth": "d", "resolution": "r"}
NUMBERS = (*DIMENSIONS, "params", "multiply_adds", "resolution_px")
B0 = "EfficientNet-B0"
# The printed name of a network, by the beginning of its own without punctuation; the longer beginnings first.
PRINTED = (
    ("mobilenetv2", "MobileNetV2"),
    ("mobilenetv1", "MobileNetV1"),
    ("mobilenetw", "MobileNetV1"),
    ("resnet50", "ResNet-50"),
    ("efficientnetb0", B0),
)
Points = list[Json]


def facts(part: Json) -> Json:
    """Table 3 by network, every other point, and the figures; the paper's numbers stand without a part too."""
    points = [_point(entry) for entry in entries(part, "points")]
    for point in points:
        point["factors"] = _factors(point, points)
    bases = list(dict.fromkeys(row.base for row in scaling_study.TABLE3))
    tables: list[Json] = [
        {"base": base, "rows": _table3(base, points), "ours": _panel(base, points), "paper": _printed_panel(base)}
        for base in bases
    ]
    used = [row["ours"] for table in tables for row in table["rows"]]
    return {
        "data": part.get("data") if isinstance(part.get("data"), str) else None,
        "tables": tables,
        "others": [point for point in points if not any(point is row for row in used)],
        "figure3": [
            {"dimension": d, "chart": _single(d, points), "settings": scaling_study.FIGURE3[d]}
            for d in ("width", "depth", "resolution")
        ],
        "figure4": _figure4(points),
        "figure4_settings": scaling_study.FIGURE4,
        "figure8": {"ours": _panel(B0, points), "paper": _printed_panel(B0)},
    }


def printed_name(network: str | None) -> str:
    """``MobileNetV2`` for ``mobilenetv2_w1``; the name itself where the paper scales no such network."""
    bare = re.sub(r"[^a-z0-9]", "", (network or "").lower())
    return next((printed for start, printed in PRINTED if bare.startswith(start)), network or "unnamed")


def _point(entry: Json) -> Json:
    point = scored(entry, NUMBERS, ("network", "dimension", "mlflow_url"))
    printed = typed(mapping(entry, "paper"), ("multiply_adds", "printed_flops", "top1"), ("source",))
    return point | {"base": printed_name(point["network"]), "paper": printed}


def _factors(point: Json, points: Points) -> dict[str, float | None]:
    """Its multipliers relative to its own baseline, so that a shrunken baseline is 1 too."""
    whole = next((p for p in points if p["base"] == point["base"] and p["dimension"] == "baseline"), None)
    factors: dict[str, float | None] = {}
    for key in DIMENSIONS:
        start = whole[key] if whole and whole[key] else 1.0
        factors[key] = None if point[key] is None else round(point[key] / start, 9)
    return factors


def _table3(base: str, points: Points) -> list[Json]:
    """Returns the printed rows of one network, each with the measured row of the same method, then unprinted ones."""
    rows: list[Json] = []
    left = [point for point in points if point["base"] == base]
    for printed in (row for row in scaling_study.TABLE3 if row.base == base):
        same = [point for point in left if point["dimension"] == printed.method]
        ours = min(same, key=lambda point: _distance(point, printed), default=None)
        left = [point for point in left if point is not ours]
        counted = None if printed.counted_b is None else printed.counted_b * 1e9
        rows.append(
            {
                "method": printed.method,
                "ours": ours,
                "paper": printed,
                "counted": (ours and ours["paper"]["multiply_adds"]) or counted,
            }
        )
    return rows + [
        {"method": point["dimension"], "ours": point, "paper": None, "counted": point["paper"]["multiply_adds"]}
        for point in left
    ]


def _distance(point: Json, printed: scaling_study.PaperScalingRow) -> float:
    """How far a point is from a printed row, in its multipliers; what either lacks counts nothing."""
    pairs = ((point["factors"][key], getattr(printed, key)) for key in DIMENSIONS)
    return float(sum(abs(ours - theirs) for ours, theirs in pairs if None not in (ours, theirs)))


def _label(point: Json) -> str:
    """``w 2`` for a single dimension, else the method."""
    letter = LETTERS.get(point["dimension"] or "")
    factor = point["factors"].get(point["dimension"])
    return f"{letter} {factor:g}" if letter and factor is not None else point["dimension"] or ""


def _hover(point: Json) -> str:
    sized = ", ".join(f"{LETTERS[key]} {value:g}" for key, value in point["factors"].items() if value is not None)
    accuracy = plus_minus(point["top1"], point["se1"], point["n_val"])
    size = f"{point['multiply_adds']:,.0f} multiply-adds"
    return f"{point['base']}, {point['dimension']} ({sized}): top-1 {accuracy}, {size}"


def _dots(points: Iterable[Json]) -> list[scatter.Dot]:
    return [
        scatter.Dot(
            _label(p)[:24], p["multiply_adds"], p["top1"], p["se1"] or 0.0, p["dimension"] or "other", _hover(p)
        )
        for p in points
    ]


def _measured(points: Points, base: str, *methods: str) -> Points:
    """The points of a network that can be drawn, by multiply-adds."""
    candidates = (p for p in points if p["base"] == base and p["dimension"] in methods)
    return sorted(
        (p for p in candidates if p["multiply_adds"] and is_percent(p["top1"])), key=lambda p: p["multiply_adds"]
    )


def _one_dimension(point: Json, dimension: str) -> bool:
    return all(value in (None, 1.0) for key, value in point["factors"].items() if key != dimension)


def _panel(base: str, points: Points) -> Markup:
    """All methods of one network, each a line from the baseline."""
    start = _measured(points, base, "baseline")
    lines, dots = [], _dots(start)
    for method in (*DIMENSIONS, "compound"):
        series = _dots(p for p in _measured(points, base, method) if method == "compound" or _one_dimension(p, method))
        lines.append(scatter.joined(method, [*dots[:1], *series]))
        # Compound points have no multiplier of their own to be named by; one name is enough for their line.
        dots += [replace(dot, label="") for dot in series[:-1]] + series[-1:] if method == "compound" else series
    return scatter.scatter(dots, "multiply-adds", f"This run: {base} scaled by each method", lines)


@cache
def _printed_panel(base: str) -> Markup:
    rows = [row for row in (*scaling_study.TABLE3, *scaling_study.TABLE7) if row.base == base]
    dots, lines = [], []
    for row in rows:
        letter = LETTERS.get(row.method)
        label = f"{letter} {getattr(row, row.method):g}" if letter else row.method
        hover = f"{base}, {row.method}: top-1 {row.top1} %, {row.flops_b:g} B multiply-adds as printed"
        dots.append(scatter.Dot(label, row.flops_b * 1e9, row.top1, 0.0, row.method, hover))
        if len(dots) > 1:
            lines.append(scatter.joined(row.method, [dots[0], dots[-1]]))
    return scatter.scatter(dots, "multiply-adds", f"The paper: {base} scaled by each method", lines)


def _single(dimension: str, points: Points) -> Markup:
    """One panel of Figure 3: B0 scaled in one dimension."""
    measured = [p for p in _measured(points, B0, "baseline", dimension) if _one_dimension(p, dimension)]
    if len(measured) < 2:
        return Markup("")
    dots = _dots(measured)
    return scatter.scatter(
        dots, "multiply-adds", f"This run: B0 scaled by {dimension}", [scatter.joined(dimension, dots)]
    )


def _figure4(points: Points) -> Json:
    """B0's width scaled under each (depth, resolution) that has two widths or more."""
    usable = [p for p in _measured(points, B0, "baseline", "width", *DIMENSIONS, "compound") if _setting(p)]
    lines: list[scatter.Line] = []
    dots: list[scatter.Dot] = []
    legend: list[Json] = []
    for setting, group in groupby(sorted(usable, key=_setting), key=_setting):
        widths = {point["factors"]["width"]: point for point in group}
        if len(widths) < 2:
            continue
        series = f"setting-{len(lines) % 4 + 1}"
        last = max(widths)  # one name a line; the others are under the pointer and in the table
        drawn = [
            scatter.Dot(
                f"w {width:g}" if width == last else "",
                p["multiply_adds"],
                p["top1"],
                p["se1"] or 0.0,
                series,
                _hover(p),
            )
            for width, p in sorted(widths.items())
        ]
        dots += drawn
        lines.append(scatter.joined(series, drawn))
        legend.append({"series": series, "depth": setting[0], "resolution": setting[1]})
    if len(lines) < 2:
        return {"chart": Markup(""), "legend": []}
    chart = scatter.scatter(dots, "multiply-adds", "This run: width scaled under other depths and resolutions", lines)
    return {"chart": chart, "legend": legend}


def _setting(point: Json) -> tuple[Any, ...]:
    """(depth, resolution), or nothing where the width or one of them is not known."""
    setting = tuple(point["factors"][key] for key in ("depth", "resolution", "width"))
    return () if None in setting else setting[:2]
