"""The report as one self-contained HTML page, and its first table as markdown. Pure: results in, text out.

The numbers come from :mod:`tasks.report.sections`; the text, style and script are in ``templates/``. The page loads
nothing from elsewhere, and works without its script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models import paper
from models.results import Summary
from tasks.report.numbers import FILTERS, plain
from tasks.report.results import PARTS, Stored
from tasks.report.sections import answer, family, provenance, search

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A section of the page; one without results is folded into a line with the command that makes it."""

    name: str  # of its anchor
    title: str
    template: str
    there: bool
    make: str


def render(reproduction: Stored | None, parts: Mapping[str, Stored], lines: Mapping[str, Stored] | None = None) -> str:
    """Returns the page.

    Args:
        reproduction: The :class:`models.results.Summary` of a reproduction, if there was one.
        parts: The parts that exist, by name; the page folds the others, each with the command that makes it.
        lines: The part ``nights`` of each line of champions, to whose pages this one links.
    """
    stored = [reproduction, *parts.values()] if reproduction else [*parts.values()]
    profile = next((entry.provenance.profile for entry in stored if entry.provenance.profile), None)
    summary = reproduction.result if reproduction else Summary()
    results = {part.name: parts[part.name].result if part.name in parts else part.result() for part in PARTS}
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            summary=summary,
            reproduced=reproduction is not None,
            missing=[*(reproduction.problems if reproduction else ()), *summary.missing],
            profile=profile,
            parts={part.name: _status(parts.get(part.name)) for part in PARTS},
            answer=answer.answer(summary, results, profile),
            sections=_sections(summary, parts, profile),
            family=family.facts(summary),
            search=search.facts(summary.search),
            provenance=_provenance(reproduction, parts),
            paper=paper,
            other_lines=_other_lines(lines, results["nights"].line),
            **{part.name: part.facts(results[part.name], summary) for part in PARTS},
            **_assets(),
        )
    )


def night_file(line: str) -> str:
    """Name of the page of a line of champions, beside the report."""
    return f"night-{line}.html"


def _other_lines(lines: Mapping[str, Stored] | None, shown: str) -> list[tuple[str, Stored]]:
    """File and part of each line of champions but the one that is shown, by name."""
    return [(night_file(line), stored) for line, stored in sorted((lines or {}).items()) if line != shown]


def render_night(night: Stored, lines: Mapping[str, Stored] | None = None) -> str:
    """Returns the page of a line: what came of its last night, its versions, and the moves of its champion.

    Args:
        night: The part ``nights`` of the line.
        lines: That of each line, to whose pages this one links.
    """
    [part] = [part for part in PARTS if part.name == "nights"]
    return (
        _environment()
        .get_template("night.html.j2")
        .render(
            parts={part.name: _status(night)},
            other_lines=_other_lines(lines, night.result.line),
            nights=part.facts(night.result, Summary()),
            origin=provenance.origin(part.title, "", night.provenance, night.result.command),
            profile=night.provenance.profile,
            **_assets(),
        )
    )


def _make(verb: str, profile: str | None) -> str:
    """The command that makes a part."""
    return f"effnet {verb} profile={profile}" if profile else f"effnet {verb}"


def _status(stored: Stored | None) -> dict[str, Any]:
    """Opening of a part's section: whether the part exists, and what failed in it."""
    return {"there": stored is not None, "missing": [*stored.problems, *stored.result.missing] if stored else []}


def _sections(summary: Summary, parts: Mapping[str, Stored], profile: str | None) -> list[Section]:
    """All sections between the answer and the provenance, in page order."""
    reproduced = {"transfer"} if summary.transfer else set()  # shown in the section of the part
    trained, make = bool(summary.variants), _make("reproduce", profile)
    return [
        Section("table2", "B0 to B7", "family.html.j2", trained, make),
        Section("figures", "Accuracy over size", "figures.html.j2", trained, make),
        Section("search", "Grid search", "search.html.j2", summary.search is not None, make),
        *(
            Section(
                part.name,
                part.title,
                f"{part.name}.html.j2",
                part.name in parts or part.name in reproduced,
                _make(part.verb, profile),
            )
            for part in PARTS
        ),
    ]


def _provenance(reproduction: Stored | None, parts: Mapping[str, Stored]) -> dict[str, Any]:
    """Origin of the reproduction and of every part that exists; the data and the services."""
    summary = reproduction.result if reproduction else Summary()
    rows = []
    if reproduction:
        digests = {shards.name: shards.manifest_sha256 for shards in summary.data}
        recorded = replace(reproduction.provenance, data_sha256=digests)
        make = _make("reproduce", recorded.profile)
        rows.append(provenance.origin("Reproduction and grid search", make, recorded, summary.command))
    for part in PARTS:
        if stored := parts.get(part.name):
            make = _make(part.verb, stored.provenance.profile)
            rows.append(provenance.origin(part.title, make, stored.provenance, stored.result.command))
    services = provenance.services(summary.services)
    return {"rows": rows, "data": summary.data, "services": services, "workers": ", ".join(summary.workers)}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,  # a mistake in a template must fail a test, not leave a gap in the page
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment


@cache
def _assets() -> dict[str, str]:
    """Style and script, with the sha256 by which the content security policy allows only this script."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": style, "script": script, "script_sha256": digest}


def markdown_table(summary: Summary) -> str:
    """Returns the results of B0 to B7 beside Table 2 of the paper, as a markdown table."""
    lines = [
        "| model | params | multiply-adds | px | top-1, % | top-5, % | n | minutes "
        "| paper: params | multiply-adds | top-1, % | top-5, % |",
        "|:--|" + "--:|" * 11,
    ]
    specs = {
        "params": ",.0f",
        "multiply_adds": ",.0f",
        "resolution": ",.0f",
        "top1": ".2f",
        "top5": ".2f",
        "n_val": ",.0f",
        "minutes": ".1f",
    }
    for row in family.variant_rows(summary):
        ours, theirs = row.ours, row.paper
        cells = {key: plain(getattr(ours, key, None), spec) for key, spec in specs.items()}
        if ours is None:
            cells["top1"] = "not run"
        elif row.error is not None:
            cells["top1"] += f" ± {row.error:.2f}"
        last = ["\N{EM DASH}"] * 4
        if theirs:
            last = [f"{theirs.params_m:g} M", f"{theirs.flops_b:g} B", f"{theirs.top1}", f"{theirs.top5}"]
        # A custom name may hold any character; a bar or a tag would break the table or the page.
        name = re.sub(r"([|<>`\[\]\\])", r"\\\1", " ".join(row.short.split()))
        lines.append(f"| {' | '.join([name, *cells.values(), *last])} |")
    return "\n".join(lines) + "\n"
