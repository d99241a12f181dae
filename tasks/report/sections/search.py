"""The grid search for alpha, beta and gamma, and the family that follows from its best point (section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from models import paper
from models.results import FamilyMember, RefusedPoint, SearchResult, Trial
from tasks.report.charts import scatter
from tasks.report.charts.parallel import Axis, Thread, parallel
from tasks.report.numbers import NIL, is_percent, plus_minus

COEFFICIENTS = ("alpha", "beta", "gamma")


@dataclass(frozen=True)
class TrialRow:
    """A trial with its verdict, its interval chart, and the key of its line in the figure."""

    trial: Trial
    key: str
    best: bool
    tied: bool
    paper: bool  # the paper's choice
    chart: Markup


def facts(search: SearchResult | None) -> dict[str, Any]:
    """The trials, the best first, each with its verdict; what was refused or failed; the family."""
    if search is None:
        return {"result": None, "trials": [], "refused": [], "family": [], "paper": paper}
    ranked = sorted(search.trials, key=lambda trial: -trial.minival_top1)
    measured = [(trial.minival_top1, trial.standard_error) for trial in ranked if is_percent(trial.minival_top1)]
    span = scatter.percent_range(measured) if measured else None
    tied = {coefficients(trial) for trial in search.tied} - {coefficients(search.best)}
    rows = [
        TrialRow(
            trial,
            key=f"trial-{number}",
            best=coefficients(trial) == coefficients(search.best),
            tied=coefficients(trial) in tied,
            paper=coefficients(trial) == (paper.ALPHA, paper.BETA, paper.GAMMA),
            chart=_interval(trial, search.best, span),
        )
        for number, trial in enumerate(ranked, 1)
    ]
    return {
        "result": search,
        "trials": rows,
        "axis": scatter.interval_axis(span) if span else Markup(""),
        "refused": [(point, _product(point)) for point in search.refused],
        "chart": _parallel(rows, search),
        "family": [(member, _ratios(member)) for member in search.family],
        "paper": paper,
    }


def _interval(trial: Trial, best: Trial, span: scatter.Interval | None) -> Markup:
    """The trial's accuracy with its standard error, over the shaded one of the best."""
    if span is None or not is_percent(trial.minival_top1):
        return NIL
    error = trial.standard_error
    ends = (trial.minival_top1 - error, trial.minival_top1 + error)
    band = (best.minival_top1 - best.standard_error, best.minival_top1 + best.standard_error)
    hover = plus_minus(trial.minival_top1, error, trial.n_minival)
    return scatter.interval(trial.minival_top1, ends, span, band, hover)


def coefficients(trial: Trial) -> tuple[float, ...]:
    """(alpha, beta, gamma), rounded so that 1.1500000001 is 1.15."""
    return tuple(round(getattr(trial, key), 6) for key in COEFFICIENTS)


def _product(point: RefusedPoint) -> float | None:
    product = point.alpha * point.beta * point.beta * point.gamma * point.gamma
    return product if math.isfinite(product) else None


def _ratios(member: FamilyMember) -> dict[str, float | None]:
    pairs = {key: (getattr(member.derived, key), getattr(member.hand_set, key)) for key in ("params", "multiply_adds")}
    return {key: derived / hand_set if derived and hand_set else None for key, (derived, hand_set) in pairs.items()}


def _parallel(rows: Sequence[TrialRow], search: SearchResult) -> Markup:
    """Alpha, beta, gamma, their product and the accuracy; what was refused ends at the product, the best on top."""
    if not rows:
        return Markup("")
    threads = []
    for point in search.refused:
        if (product := _product(point)) is not None:
            values = [point.alpha, point.beta, point.gamma, product, None]
            threads.append(Thread(values, "refused", "", f"{_format_point(point, product)}: refused"))
    for row in sorted(rows, key=lambda row: (row.best, row.tied)):
        trial = row.trial
        series = "best" if row.best else "tied" if row.tied else "other"
        accuracy = plus_minus(trial.minival_top1, trial.standard_error, trial.n_minival)
        hover = f"{_format_point(trial, trial.product)}: minival top-1 {accuracy}"
        values = [trial.alpha, trial.beta, trial.gamma, trial.product, trial.minival_top1]
        threads.append(Thread(values, series, row.key, hover))
    band = None
    if search.budget is not None and search.tolerance is not None:
        band = (search.budget - search.tolerance, search.budget + search.tolerance)
    labels = ("α", "β", "γ", "αβ²γ²", "top-1, %")
    axes = [
        Axis(label, [v for thread in threads if (v := thread.values[i]) is not None], band if i == 3 else None)
        for i, label in enumerate(labels)
    ]
    return parallel(axes, threads, "The grid of alpha, beta and gamma, with the accuracy of each point")


def _format_point(point: Trial | RefusedPoint, product: float) -> str:
    return f"({point.alpha:g}, {point.beta:g}, {point.gamma:g}), αβ²γ² = {product:.2f}"
