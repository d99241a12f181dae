"""The grid search for alpha, beta and gamma, and the family that follows from its winner (section 3.3)."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from models import paper
from tasks.report.charts import scatter
from tasks.report.charts.parallel import Axis, Thread, parallel
from tasks.report.numbers import NIL, plus_minus, standard_error
from tasks.report.sections.values import RUN, Json, best_first, entries, is_percent, items, lines, mapping, typed

COEFFICIENTS = ("alpha", "beta", "gamma")
TRIAL = (*COEFFICIENTS, "product", "params", "multiply_adds", "resolution", "minival_top1", "n_minival", "counted_cost")
SIZED = ("width", "depth", "resolution", "params", "multiply_adds", "resolution_px")


def facts(summary: Json) -> Json:
    """The trials, the best first, each with its verdict: the best, tied with it, the paper's own."""
    search = mapping(summary, "search")
    trials = best_first((_trial(entry) for entry in entries(search, "trials")), "minival_top1")
    best = _trial(mapping(search, "best")) if mapping(search, "best") else None
    tied = {_point(item) for item in items(search, "tied")}
    for number, trial in enumerate(trials, 1):
        trial["key"] = f"trial-{number}"
        trial["best"] = best is not None and trial["point"] == best["point"]
        trial["tied"] = trial["point"] in tied and trial["point"] is not None and not trial["best"]
        trial["paper"] = trial["point"] == (paper.ALPHA, paper.BETA, paper.GAMMA)
    refused = [_refused(entry) for entry in entries(search, "refused")]
    numbers = typed(search, ("budget", "tolerance", "counted_tolerance"), ())
    return numbers | {
        "trials": trials,
        "best": best,
        "axis": _intervals(trials, best),
        "refused": refused,
        "failed": lines(search, "failed"),
        "chart": _parallel(trials, refused, numbers),
        "family": [_family_row(entry) for entry in entries(search, "family")],
        "paper": paper,
    }


def _intervals(trials: list[Json], best: Json | None) -> Markup:
    """Gives every trial its chart; returns their common axis."""
    measured = [(t["minival_top1"], t["se"] or 0.0) for t in trials if is_percent(t["minival_top1"])]
    span = scatter.percent_range(measured) if measured else None
    band = None
    if best and best["se"] is not None:
        band = (best["minival_top1"] - best["se"], best["minival_top1"] + best["se"])
    for trial in trials:
        trial["chart"] = NIL
        if span and is_percent(trial["minival_top1"]):
            hover = plus_minus(trial["minival_top1"], trial["se"], trial["n_minival"])
            low, high = (trial["minival_top1"] + k * (trial["se"] or 0.0) for k in (-1, 1))
            trial["chart"] = scatter.interval(trial["minival_top1"], (low, high), span, band, hover)
    return scatter.interval_axis(span) if span else Markup("")


def _trial(entry: Json) -> Json:
    trial = typed(entry, TRIAL, RUN)
    return trial | {"point": _point(entry), "se": standard_error(trial["minival_top1"], trial["n_minival"])}


def _refused(entry: Json) -> Json:
    point = typed(entry, (*COEFFICIENTS, "multiply_adds"), ("reason",))
    alpha, beta, gamma = (math.nan if point[key] is None else float(point[key]) for key in COEFFICIENTS)
    product = alpha * beta * beta * gamma * gamma
    return point | {"product": product if math.isfinite(product) else None}


def _point(item: Any) -> tuple[float, ...] | None:
    """(alpha, beta, gamma) of a trial or of a bare triple, rounded so that 1.1500000001 is 1.15."""
    values = [item.get(key) for key in COEFFICIENTS] if isinstance(item, dict) else item
    if not isinstance(values, list) or len(values) != 3:
        return None
    return tuple(round(v, 6) for v in values) if all(isinstance(v, int | float) for v in values) else None


def _family_row(entry: Json) -> Json:
    derived = typed(mapping(entry, "derived"), SIZED, ())
    hand_set = typed(mapping(entry, "hand_set"), SIZED, ("name",))
    ratios = {key: derived[key] / hand_set[key] if derived[key] and hand_set[key] else None for key in SIZED[3:5]}
    return typed(entry, ("phi",), ()) | {"derived": derived, "hand_set": hand_set, "ratios": ratios}


def _parallel(trials: list[Json], refused: list[Json], budget: Json) -> Markup:
    """Alpha, beta, gamma, their product and the accuracy; what was refused ends at the product, the best on top."""
    shown = [trial for trial in trials if trial["point"] and trial["product"] is not None]
    refused_points = [point for point in refused if point["product"] is not None]
    everything = [*shown, *refused_points]
    measured = [trial["minival_top1"] for trial in shown if trial["minival_top1"] is not None]
    if not measured:
        return Markup("")
    band = None
    if None not in (budget["budget"], budget["tolerance"]):
        band = (budget["budget"] - budget["tolerance"], budget["budget"] + budget["tolerance"])
    axes = [
        *(Axis(sign, [trial[key] for trial in everything]) for sign, key in zip("αβγ", COEFFICIENTS, strict=True)),
        Axis("αβ²γ²", [trial["product"] for trial in everything], band),
        Axis("top-1, %", measured),
    ]
    threads = [Thread(_values(point), "refused", "", f"{_format_point(point)}: refused") for point in refused_points]
    for trial in sorted(shown, key=lambda trial: (trial["best"], trial["tied"])):
        series = "best" if trial["best"] else "tied" if trial["tied"] else "other"
        accuracy = plus_minus(trial["minival_top1"], trial["se"], trial["n_minival"])
        threads.append(
            Thread(_values(trial), series, trial["key"], f"{_format_point(trial)}: minival top-1 {accuracy}")
        )
    return parallel(axes, threads, "The grid of alpha, beta and gamma, with the accuracy of each point")


def _values(point: Json) -> list[float | None]:
    return [*(point[key] for key in (*COEFFICIENTS, "product")), point.get("minival_top1")]


def _format_point(point: Json) -> str:
    sized = ", ".join(f"{point[key]:g}" for key in COEFFICIENTS)
    return f"({sized}), αβ²γ² = {point['product']:.2f}"
