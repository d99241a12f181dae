"""The architecture search for the baseline (section 4, first step; MnasNet's space): its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from models.results import ArchitectureResult, ArchitectureTrial, Objective, Summary
from tasks.report.charts import scatter
from tasks.report.numbers import is_percent, plus_minus, si

STATES = ("complete", "failed", "refused")


def facts(part: ArchitectureResult, _summary: Summary) -> dict[str, Any]:
    """The objective, B0's trial and the others: by reward, then those that failed, then those refused."""
    baseline = part.baseline
    b0_trial = next((trial for trial in part.trials if baseline and trial.number == baseline.number), None)
    ranks = {state: rank for rank, state in enumerate(STATES)}
    trials = sorted(part.trials, key=lambda t: (ranks.get(t.state, len(ranks)), -(t.reward or 0.0), t.number))
    return {
        "result": part,
        "trials": [trial for trial in trials if trial is not b0_trial],  # B0 is one of them: listed first
        "states": {state: sum(trial.state == state for trial in trials) for state in STATES},
        "chart": _chart(trials, b0_trial, baseline, part.objective),
    }


def _chart(
    trials: Sequence[ArchitectureTrial],
    b0_trial: ArchitectureTrial | None,
    baseline: ArchitectureTrial | None,
    objective: Objective | None,
) -> Markup:
    dots = []
    for trial in trials:
        name = f"#{trial.number}"
        if trial.state == "complete":
            dots += _dot(trial, name, "front" if trial.pareto else "trial", name if trial.pareto else "")
    front = sorted((dot for dot in dots if dot.series == "front"), key=lambda dot: dot.x)
    if b0_trial:  # drawn once, as what it is
        dots = [dot for dot in dots if (dot.x, dot.y) != (b0_trial.multiply_adds, b0_trial.accuracy)]
    if baseline:
        dots += _dot(baseline, "B0, the paper’s", "base", "B0")
    refused = [trial.multiply_adds for trial in trials if trial.state == "refused" and trial.multiply_adds]
    marks = [scatter.Mark(cost, f"refused: {si(cost)} multiply-adds") for cost in refused]
    target = objective.target_multiply_adds if objective else 0
    if target:
        marks.append(scatter.Mark(target, f"the target: {target:,.0f} multiply-adds", f"T = {si(target)}"))
    return scatter.scatter(
        dots, "multiply-adds", "Accuracy over multiply-adds of the trials", [_steps(front)] if front else [], marks
    )


def _dot(trial: ArchitectureTrial, name: str, series: str, label: str) -> list[scatter.Dot]:
    if not trial.multiply_adds or trial.accuracy is None or not is_percent(trial.accuracy):
        return []
    accuracy = plus_minus(trial.accuracy, trial.standard_error, trial.n)
    hover = f"{name}: {accuracy}, {trial.multiply_adds:,.0f} multiply-adds"
    return [scatter.Dot(label, trial.multiply_adds, trial.accuracy, 0.0, series, hover)]


def _steps(front: Sequence[scatter.Dot]) -> scatter.Line:
    """Between two points of a front nothing better is known than the cheaper one: a staircase."""
    points = [(front[0].x, front[0].y)]
    for dot in front[1:]:
        points += [(dot.x, points[-1][1]), (dot.x, dot.y)]
    return scatter.Line("front", points)
