"""The scaling study: Table 3 and Figures 3, 4 and 8, single dimensions against compound scaling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any

from markupsafe import Markup

from models.experiments import scaling_study
from models.experiments.scaling_study import PaperScalingRow
from models.results import ScalingPoint, ScalingResult, Summary
from models.statistics import count_folds, standard_error
from tasks.report.charts import scatter
from tasks.report.numbers import is_percent, plus_minus

DIMENSIONS = ("depth", "width", "resolution")
LETTERS = {"width": "w", "depth": "d", "resolution": "r"}
B0 = "EfficientNet-B0"
# The printed name of a network, by the beginning of its own without punctuation; the longer beginnings first.
PRINTED = (
    ("mobilenetv2", "MobileNetV2"),
    ("mobilenetv1", "MobileNetV1"),
    ("mobilenetw", "MobileNetV1"),
    ("resnet50", "ResNet-50"),
    *((f"efficientnetb{phi}", f"EfficientNet-B{phi}") for phi in range(8)),
)


@dataclass(frozen=True)
class Scaled:
    """A point of the study.

    Attributes:
        base: Printed name of the network that is scaled.
        factors: Multipliers relative to its own baseline, so that a shrunken baseline is 1 too.
        error: Standard error of the top-1 accuracy, in points.
    """

    point: ScalingPoint
    base: str
    factors: dict[str, float]
    error: float | None

    @property
    def dimension(self) -> str:
        """The scaling method."""
        return self.point.dimension


@dataclass(frozen=True)
class MethodRow:
    """A row of Table 3: a scaling method as measured and as printed, and its multiply-adds at the paper's size."""

    method: str
    ours: Scaled | None
    paper: PaperScalingRow | None
    counted: float | None


def facts(part: ScalingResult, _summary: Summary) -> dict[str, Any]:
    """Table 3 by network, every other point, and the figures; the paper's numbers are shown without a part too."""
    points = [_scaled(point, part.points) for point in part.points]
    bases = list(dict.fromkeys(row.base for row in scaling_study.TABLE3))
    tables: list[dict[str, Any]] = [
        {"base": base, "rows": _table3(base, points), "ours": _panel(base, points), "paper": _printed_panel(base)}
        for base in bases
    ]
    figure4 = _figure4(points)
    used = [row.ours for table in tables for row in table["rows"]]
    return {
        "data": part.data,
        "verdicts": part.verdicts,
        "comparisons": part.comparisons,
        "seeds": part.seeds,
        "folds": count_folds(row.lead for row in part.comparisons),
        "tables": [table for table in tables if _has_points(table) or not points],
        "tables_not_run": [table for table in tables if points and not _has_points(table)],
        "others": [point for point in points if not any(point is row for row in used)],
        "figure3": [
            {"dimension": d, "chart": _single(d, points), "settings": scaling_study.FIGURE3[d]}
            for d in ("width", "depth", "resolution")
        ],
        "figure4": figure4,
        "figure4_not_run": bool(points) and not figure4["chart"],
        "figure4_settings": scaling_study.FIGURE4,
        "figure8": {"ours": _panel(B0, points), "paper": _printed_panel(B0)},
    }


def _has_points(table: Mapping[str, Any]) -> bool:
    return any(row.ours for row in table["rows"])


def printed_name(network: str) -> str:
    """``MobileNetV2`` for ``mobilenetv2_w1``; the name itself where the paper scales no such network."""
    bare = re.sub(r"[^a-z0-9]", "", network.lower())
    return next((printed for start, printed in PRINTED if bare.startswith(start)), network or "unnamed")


def _scaled(point: ScalingPoint, points: Sequence[ScalingPoint]) -> Scaled:
    base = printed_name(point.network)
    whole = next((p for p in points if printed_name(p.network) == base and p.dimension == "baseline"), None)
    factors = {key: round(getattr(point, key) / (getattr(whole, key, 1.0) or 1.0), 9) for key in DIMENSIONS}
    return Scaled(point, base, factors, standard_error(point.top1, point.n_val))


def _table3(base: str, points: Sequence[Scaled]) -> list[MethodRow]:
    """Returns the printed rows of one network, each with the measured row of the same method, then unprinted ones."""
    rows = []
    rest = [point for point in points if point.base == base]
    for printed in (row for row in scaling_study.TABLE3 if row.base == base):
        same = [point for point in rest if point.dimension == printed.method]
        ours = min(same, key=lambda point: _distance(point, printed), default=None)
        rest = [point for point in rest if point is not ours]
        counted = None if printed.counted_b is None else printed.counted_b * 1e9
        rows.append(MethodRow(printed.method, ours, printed, (ours and ours.point.paper.multiply_adds) or counted))
    return rows + [MethodRow(point.dimension, point, None, point.point.paper.multiply_adds) for point in rest]


def _distance(point: Scaled, printed: PaperScalingRow) -> float:
    """How far a point is from a printed row, in its multipliers; one that is not printed counts nothing."""
    pairs = ((factor, getattr(printed, key)) for key, factor in point.factors.items())
    return float(sum(abs(ours - theirs) for ours, theirs in pairs if theirs is not None))


def _label(point: Scaled) -> str:
    """``w 2`` for a single dimension, else the method."""
    letter = LETTERS.get(point.dimension)
    return f"{letter} {point.factors[point.dimension]:.4g}" if letter else point.dimension


def _hover(point: Scaled) -> str:
    factors = ", ".join(f"{LETTERS[key]} {value:g}" for key, value in point.factors.items())
    accuracy = plus_minus(point.point.top1, point.error, point.point.n_val)
    size = f"{point.point.multiply_adds:,.0f} multiply-adds"
    return f"{point.base}, {point.dimension} ({factors}): top-1 {accuracy}, {size}"


def _dot(point: Scaled, series: str, label: str) -> scatter.Dot:
    """A point of :func:`_measured`, whose accuracy is known."""
    size, top1 = point.point.multiply_adds, point.point.top1 or 0.0
    return scatter.Dot(label, size, top1, point.error or 0.0, series, _hover(point))


def _dots(points: Iterable[Scaled]) -> list[scatter.Dot]:
    return [_dot(point, point.dimension or "other", _label(point)[:24]) for point in points]


def _measured(points: Sequence[Scaled], base: str, *methods: str) -> list[Scaled]:
    """The points of a network that can be drawn, by multiply-adds."""
    candidates = (p for p in points if p.base == base and p.dimension in methods)
    drawn = (p for p in candidates if p.point.multiply_adds and is_percent(p.point.top1))
    return sorted(drawn, key=lambda p: p.point.multiply_adds)


def _is_single(point: Scaled, dimension: str) -> bool:
    return all(value == 1.0 for key, value in point.factors.items() if key != dimension)


def _panel(base: str, points: Sequence[Scaled]) -> Markup:
    """All methods of one network, each a line from the baseline."""
    start = _measured(points, base, "baseline")
    lines, dots = [], _dots(start)
    for method in (*DIMENSIONS, "compound"):
        series = _dots(p for p in _measured(points, base, method) if method == "compound" or _is_single(p, method))
        lines.append(scatter.joined(method, [*dots[:1], *series]))
        # Compound points have no single multiplier as a label; one label is enough for their line.
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


def _single(dimension: str, points: Sequence[Scaled]) -> Markup:
    """One panel of Figure 3: B0 scaled in one dimension."""
    measured = [p for p in _measured(points, B0, "baseline", dimension) if _is_single(p, dimension)]
    if len(measured) < 2:
        return Markup("")
    dots = _dots(measured)
    return scatter.scatter(
        dots, "multiply-adds", f"This run: B0 scaled by {dimension}", [scatter.joined(dimension, dots)]
    )


def _figure4(points: Sequence[Scaled]) -> dict[str, Any]:
    """B0's width scaled under each (depth, resolution) that has two widths or more."""
    lines: list[scatter.Line] = []
    dots: list[scatter.Dot] = []
    legend: list[dict[str, Any]] = []
    measured = _measured(points, B0, "baseline", *DIMENSIONS, "compound")
    for setting, group in groupby(sorted(measured, key=_setting), key=_setting):
        widths = {point.factors["width"]: point for point in group}
        if len(widths) < 2:
            continue
        series = f"setting-{len(lines) % 4 + 1}"
        last = max(widths)  # one label a line; the others are in the tooltips and in the table
        drawn = [_dot(p, series, f"w {width:g}" if width == last else "") for width, p in sorted(widths.items())]
        dots += drawn
        lines.append(scatter.joined(series, drawn))
        legend.append({"series": series, "depth": setting[0], "resolution": setting[1]})
    if len(lines) < 2:
        return {"chart": Markup(""), "legend": []}
    chart = scatter.scatter(dots, "multiply-adds", "This run: width scaled under other depths and resolutions", lines)
    return {"chart": chart, "legend": legend}


def _setting(point: Scaled) -> tuple[float, float]:
    """(depth, resolution)."""
    return point.factors["depth"], point.factors["resolution"]
