"""The architecture search for the baseline (section 4, first step; MnasNet's space): its Pareto front."""

from __future__ import annotations

from markupsafe import Markup

from tasks.report.charts import scatter
from tasks.report.numbers import plus_minus, si, standard_error
from tasks.report.sections.values import RUN, Json, entries, is_percent, items, mapping, typed

NUMBERS = ("number", "params", "multiply_adds", "accuracy", "n", "reward")
STATES = ("complete", "failed", "refused")


def facts(part: Json) -> Json:
    """The objective, B0's own point and the trials: by reward, then those that failed, then those refused."""
    baseline = _trial(mapping(part, "baseline")) if mapping(part, "baseline") else None
    trials = [_trial(entry) for entry in entries(part, "trials")]
    b0_trial = next(
        (t for t in trials if baseline and t["number"] is not None and t["number"] == baseline["number"]), None
    )
    trials.sort(key=lambda t: (STATES.index(t["state"]), -(t["reward"] or 0.0), t["number"] or 0))
    objective = typed(mapping(part, "objective"), ("exponent", "target_multiply_adds"), ())
    return {
        "objective": objective,
        "baseline": baseline,
        "trials": [trial for trial in trials if trial is not b0_trial],  # B0's own blocks are one of them: listed first
        "data": typed(part, (), ("data",))["data"],
        "verdict": typed(part, (), ("verdict",))["verdict"],
        "states": {state: sum(trial["state"] == state for trial in trials) for state in STATES},
        "chart": _chart(trials, b0_trial, baseline, objective),
    }


def _trial(entry: Json) -> Json:
    trial = typed(entry, NUMBERS, ("state", "reason", *RUN))
    if trial["state"] not in STATES:
        trial["state"] = "complete" if trial["accuracy"] is not None else "failed"
    return trial | {
        "blocks": [str(block) for block in items(entry, "blocks")],
        "pareto": entry.get("pareto") is True,
        "se": standard_error(trial["accuracy"], trial["n"]),
    }


def _chart(trials: list[Json], b0_trial: Json | None, baseline: Json | None, objective: Json) -> Markup:
    dots = []
    for trial in trials:
        name = "a trial" if trial["number"] is None else f"#{trial['number']:.0f}"
        if trial["state"] == "complete":
            dots += _dot(trial, name, "front" if trial["pareto"] else "trial", name if trial["pareto"] else "")
    front = sorted((dot for dot in dots if dot.series == "front"), key=lambda dot: dot.x)
    if b0_trial:  # drawn once, as what it is
        dots = [dot for dot in dots if (dot.x, dot.y) != (b0_trial["multiply_adds"], b0_trial["accuracy"])]
    if baseline:
        dots += _dot(baseline, "B0, the paper’s", "base", "B0")
    refused = [trial for trial in trials if trial["state"] == "refused" and trial["multiply_adds"]]
    marks = [scatter.Mark(t["multiply_adds"], f"refused: {si(t['multiply_adds'])} multiply-adds") for t in refused]
    target = objective["target_multiply_adds"]
    if target:
        marks.append(scatter.Mark(target, f"the target: {target:,.0f} multiply-adds", f"T = {si(target)}"))
    return scatter.scatter(
        dots, "multiply-adds", "Accuracy over multiply-adds of the trials", [_steps(front)] if front else [], marks
    )


def _dot(trial: Json, name: str, series: str, label: str) -> list[scatter.Dot]:
    if not trial["multiply_adds"] or not is_percent(trial["accuracy"]):
        return []
    accuracy = plus_minus(trial["accuracy"], trial["se"], trial["n"])
    hover = f"{name}: {accuracy}, {trial['multiply_adds']:,.0f} multiply-adds"
    return [scatter.Dot(label, trial["multiply_adds"], trial["accuracy"], 0.0, series, hover)]


def _steps(front: list[scatter.Dot]) -> scatter.Line:
    """Between two points of a front nothing better is known than the cheaper one: a staircase."""
    points = [(front[0].x, front[0].y)]
    for dot in front[1:]:
        points += [(dot.x, points[-1][1]), (dot.x, dot.y)]
    return scatter.Line("front", points)
