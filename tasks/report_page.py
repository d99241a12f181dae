"""The report of a run as one self-contained HTML page, and its table as markdown. Pure: a dict in, text out.

What the summary lacks is shown as missing, never guessed: every number on the page is in the summary, in
:mod:`models.paper`, or follows from these by a ratio or a binomial standard error. The sentences stand in
``report_page.html.j2``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from models import paper
from tasks import charts
from tasks.report_numbers import FILTERS, NIL, plain, plus_minus, si, standard_error

Json = dict[str, Any]

SIZE = ("params", "multiply_adds", "resolution")
FULL_SIZE = ("paper_params", "paper_multiply_adds")
VARIANT = (*SIZE, *FULL_SIZE, "top1", "top5", "n_val", "minutes", "images_per_s", "epochs")
TRIAL = ("alpha", "beta", "gamma", "product", *SIZE, "minival_top1", "n_minival")
DATA = ("train", "minival", "val", "classes", "shards")
RUN = ("mlflow_run", "mlflow_url")
MACHINE = ("cpu", "cores", "memory_gb", "gpu", "python", "torch")
SERVICES = ("prefect", "mlflow", "s3")


def render(summary: Mapping[str, Any]) -> str:
    """Returns the page for a ``summary.json`` (the JSON of :class:`models.results.Summary`).

    Any key may be missing or empty; the page then says so in its place.
    """
    clean: Json = _clean(summary)
    rows = variant_rows(clean)
    return _template().render(
        about=_typed(clean, ("wall_s", "jobs", "jobs_found"), ("profile", "commit", "started", "finished", "command")),
        missing=[str(line) for line in _list(clean, "missing")],
        rows=rows,
        figures=_figures(rows),
        search=_search(_mapping(clean, "search")),
        transfer=[_scored(entry) for entry in _entries(clean, "transfer")],
        data=[_typed(e, DATA, ("name", "manifest_sha256", "manifest_uri")) for e in _entries(clean, "data")],
        trained_on=_trained_on(clean),
        machine=_named(_mapping(clean, "machine"), MACHINE),
        services=_named(_mapping(clean, "services"), SERVICES),
        paper=paper,
    )


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Returns B0 to B7, ours beside the paper's Table 2, as a markdown table."""
    lines = [
        "| model | params | multiply-adds | px | top-1, % | top-5, % | n | minutes "
        "| paper: params | multiply-adds | top-1, % | top-5, % |",
        "|:--|" + "--:|" * 11,
    ]
    specs = {"params": ",.0f", "multiply_adds": ",.0f", "resolution": ",.0f", "top1": ".2f", "top5": ".2f",
             "n_val": ",.0f", "minutes": ".1f"}  # fmt: skip
    for row in variant_rows(_clean(summary)):
        ours, theirs = row["ours"], row["paper"]
        cells = {key: plain(ours[key] if ours else None, spec) for key, spec in specs.items()}
        if ours is None:
            cells["top1"] = "not run"
        elif ours["se1"] is not None:
            cells["top1"] += f" ± {ours['se1']:.2f}"
        last = ["\N{EM DASH}"] * 4
        if theirs:
            last = [f"{theirs.params_m:g} M", f"{theirs.flops_b:g} B", f"{theirs.top1}", f"{theirs.top5}"]
        # A name that is not ours may hold anything; a bar or a tag would break the table or the page.
        name = re.sub(r"([|<>`\[\]\\])", r"\\\1", " ".join(row["short"].split()))
        lines.append(f"| {' | '.join([name, *cells.values(), *last])} |")
    return "\n".join(lines) + "\n"


def variant_rows(summary: Json) -> list[Json]:
    """Joins every network of the family, and any other that ran, with its row of Table 2."""
    ran = {str(entry.get("name") or "unnamed"): _scored(entry) for entry in _entries(summary, "variants")}
    printed = {row.name: row for row in paper.EFFICIENTNETS}
    base = ran.get(paper.EFFICIENTNETS[0].name, {})
    rows: list[Json] = []
    for name in [*printed, *(name for name in ran if name not in printed)]:
        ours = ran.get(name)
        ratios = {key: ours[key] / base[key] if ours and ours[key] and base.get(key) else None
                  for key in (*SIZE[:2], *FULL_SIZE)}  # fmt: skip
        short = name.removeprefix("efficientnet_").upper() if name in printed else name
        rows.append({"short": short, "ours": ours, "paper": printed.get(name), "ratios": ratios})
    return rows


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,  # a slip in the template must fail a test, not leave a hole in the page
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template("report_page.html.j2")


def _clean(value: Any) -> Any:
    """Makes JSON fit to show: NaN and infinity become missing, a password in an address becomes ``***``."""
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"://[^/?#\s]*@", "://***@", value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _list(parent: Json, key: str) -> list[Any]:
    found = parent.get(key)
    return found if isinstance(found, list) else []


def _entries(parent: Json, key: str) -> list[Json]:
    return [entry for entry in _list(parent, key) if isinstance(entry, dict)]


def _mapping(parent: Json, key: str) -> Json:
    found = parent.get(key)
    return found if isinstance(found, dict) else {}


def _typed(entry: Json, numbers: Iterable[str], texts: Iterable[str]) -> Json:
    """Returns exactly the named keys: numbers or None, texts or None."""
    typed: Json = {}
    for key in numbers:
        value = entry.get(key)
        typed[key] = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return typed | {key: None if entry.get(key) in (None, "") else str(entry[key]) for key in texts}


def _named(mapping: Json, expected: tuple[str, ...]) -> Json:
    """The expected keys first, missing or not, then whatever else was recorded."""
    return _typed(mapping, (), dict.fromkeys([*expected, *mapping]))


def _scored(entry: Json) -> Json:
    row = _typed(entry, VARIANT, ("name", "data", *RUN, "registered_name", "registered_version"))
    return row | {f"se{k}": standard_error(row[f"top{k}"], row["n_val"]) for k in (1, 5)}


def _trained_on(summary: Json) -> list[str]:
    tuned = [entry.get("data") for entry in _entries(summary, "transfer")]
    names = [entry.get("name") for entry in _entries(summary, "data")]
    return [str(name) for name in names if name and name not in tuned]


def _figures(rows: list[Json]) -> list[Json]:
    """Figures 1 and 5: the run's panel beside the paper's, over parameters and over multiply-adds."""
    figures = []
    for number, key, unit in ((1, "params", "parameters"), (5, "multiply_adds", "multiply-adds")):
        figures.append({
            "number": number,
            "unit": unit,
            "ours": charts.scatter(_our_dots(rows, key, unit), unit, f"This run: top-1 over {unit}"),
            "paper": _paper_panel(key, unit),
        })  # fmt: skip
    return figures


def _our_dots(rows: list[Json], key: str, unit: str) -> list[charts.Dot]:
    dots = []
    for row in rows:
        ours = row["ours"]
        if ours and ours[key] and _is_percent(ours["top1"]):
            accuracy = plus_minus(ours["top1"], ours["se1"], ours["n_val"])
            hover = f"{row['short']}: top-1 {accuracy}, {ours[key]:,.0f} {unit}"
            label, error = row["short"][:24], ours["se1"] or 0.0
            dots.append(charts.Dot(label, ours[key], ours["top1"], error, "run", hover))
    return dots


@cache  # it never changes, and placing 24 names is the slow part of the page
def _paper_panel(key: str, unit: str) -> Markup:
    dots = []
    for row in (*paper.EFFICIENTNETS, *paper.RIVALS):
        x = row.params_m * 1e6 if key == "params" else (row.flops_b or 0) * 1e9
        label = row.name.removeprefix("efficientnet_").upper() if row.ours else row.name
        hover = f"{label}: top-1 {row.top1} %, {si(x)} {unit}"
        dots.append(charts.Dot(label, x, row.top1, 0.0, "paper" if row.ours else "rival", hover))
    return charts.scatter(dots, unit, f"The paper: top-1 over {unit}")


def _is_percent(value: float | None) -> bool:
    return value is not None and 0 <= value <= 100


def _search(search: Json) -> Json:
    """The trials, the best first, each with its verdict: the best, tied with it, the paper's own."""
    trials = [_trial(entry) for entry in _entries(search, "trials")]
    trials.sort(key=lambda trial: math.inf if trial["minival_top1"] is None else -trial["minival_top1"])
    best = _trial(_mapping(search, "best")) if _mapping(search, "best") else None
    tied = {_point(item) for item in _list(search, "tied")}
    measured = [(t["minival_top1"], t["se"] or 0.0) for t in trials if _is_percent(t["minival_top1"])]
    span = charts.percent_range(measured) if measured else None
    band = None
    if best and best["se"] is not None:
        band = (best["minival_top1"] - best["se"], best["minival_top1"] + best["se"])
    for trial in trials:
        trial["best"] = best is not None and trial["point"] == best["point"]
        trial["tied"] = trial["point"] in tied and trial["point"] is not None and not trial["best"]
        trial["paper"] = trial["point"] == (paper.ALPHA, paper.BETA, paper.GAMMA)
        trial["chart"] = NIL
        if span and _is_percent(trial["minival_top1"]):
            hover = plus_minus(trial["minival_top1"], trial["se"], trial["n_minival"])
            error = trial["se"] or 0.0
            trial["chart"] = charts.interval(trial["minival_top1"], error, span, band, hover)
    numbers = _typed(search, ("budget", "tolerance"), ())
    return numbers | {"trials": trials, "best": best, "axis": charts.interval_axis(span) if span else ""}


def _trial(entry: Json) -> Json:
    trial = _typed(entry, TRIAL, RUN)
    return trial | {"point": _point(entry), "se": standard_error(trial["minival_top1"], trial["n_minival"])}


def _point(item: Any) -> tuple[float, ...] | None:
    """(alpha, beta, gamma) of a trial or of a bare triple, rounded so that 1.1500000001 is 1.15."""
    values = [item.get(key) for key in TRIAL[:3]] if isinstance(item, dict) else item
    if not isinstance(values, list) or len(values) != 3:
        return None
    return tuple(round(v, 6) for v in values) if all(isinstance(v, int | float) for v in values) else None
