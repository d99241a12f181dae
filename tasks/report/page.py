"""The report as one self-contained HTML page, and its first table as markdown. Pure: results in, text out.

The numbers come from :mod:`tasks.report.sections`; the text, style and script are in ``templates/``. The page loads
nothing from elsewhere, and works without its script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models import paper
from models.results import Summary
from tasks.report.numbers import FILTERS, plain
from tasks.report.results import PARTS, ReportPart, Stored
from tasks.report.sections import family, provenance, search

TEMPLATES = Path(__file__).parent / "templates"


def render(reproduction: Stored | None, parts: Mapping[str, Stored]) -> str:
    """Returns the page.

    Args:
        reproduction: The :class:`models.results.Summary` of a reproduction, if there was one.
        parts: The parts that exist, by name; the page shows the others as missing, with the command that makes them.
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
            parts={part.name: _status(part, parts.get(part.name), profile) for part in PARTS},
            contents=_contents(summary, parts),
            reproduce=_make("reproduce", profile),
            family=family.facts(summary),
            search=search.facts(summary.search),
            provenance=_provenance(reproduction, parts, profile),
            paper=paper,
            **{part.name: part.facts(results[part.name], summary) for part in PARTS},
            **_assets(),
        )
    )


def _make(verb: str, profile: str | None) -> str:
    """The command that makes a part."""
    return f"effnet {verb} profile={profile}" if profile else f"effnet {verb}"


def _status(part: ReportPart, stored: Stored | None, profile: str | None) -> dict[str, Any]:
    """Opening of a section: whether the part exists, what failed in it, and the command that makes it."""
    missing = [*stored.problems, *stored.result.missing] if stored else []
    return {"there": stored is not None, "missing": missing, "make": _make(part.verb, profile)}


def _contents(summary: Summary, parts: Mapping[str, Stored]) -> list[dict[str, Any]]:
    """All sections in page order, with whether there are results for them."""
    reproduced = {"transfer"} if summary.transfer else set()  # shown in the section of the part
    rows: list[tuple[str, str, bool]] = [
        ("table2", "B0 to B7", bool(summary.variants)),
        ("figures", "Accuracy over size", bool(summary.variants)),
        ("search", "Grid search", summary.search is not None),
        *((part.name, part.title, part.name in parts or part.name in reproduced) for part in PARTS),
        ("provenance", "Provenance", True),
    ]
    return [{"id": name, "title": title, "filled": filled} for name, title, filled in rows]


def _provenance(reproduction: Stored | None, parts: Mapping[str, Stored], profile: str | None) -> dict[str, Any]:
    """Origin of the reproduction and of every part, present or not; the data and the services."""
    make = _make("reproduce", profile)
    summary = reproduction.result if reproduction else Summary()
    recorded = None
    if reproduction:
        digests = {shards.name: shards.manifest_sha256 for shards in summary.data}
        recorded = replace(reproduction.provenance, data_sha256=digests)
    rows = [provenance.origin("Reproduction and grid search", make, recorded, summary.command)]
    for part in PARTS:
        stored = parts.get(part.name)
        made_by = stored.result.command if stored else ""
        origin = stored.provenance if stored else None
        rows.append(provenance.origin(part.title, _make(part.verb, profile), origin, made_by))
    return {"rows": rows, "data": summary.data, "services": provenance.services(summary.services)}


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
    style, script = ((TEMPLATES / name).read_text() for name in ("page.css", "page.js"))
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
