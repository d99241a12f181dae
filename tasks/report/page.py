"""The report as one self-contained HTML page, and its first table as markdown. Pure: dicts in, text out.

The numbers come from :mod:`tasks.report.sections`; the text, style and script are in ``templates/``. The page loads
nothing from elsewhere, and works without its script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models import paper
from tasks.report.numbers import FILTERS, plain
from tasks.report.sections import architecture, family, latency, maps, provenance, scaling, search, transfer
from tasks.report.sections.values import Json, clean, lines, mapping, typed

TEMPLATES = Path(__file__).parent / "templates"
# Anchor and short title of each section, in page order, for the table of contents.
CONTENTS = (
    ("table2", "B0 to B7"),
    ("figures", "Accuracy over size"),
    ("search", "Grid search"),
    ("architecture", "Architecture search"),
    ("scaling", "Scaling study"),
    ("latency", "Latency"),
    ("transfer", "Transfer"),
    ("maps", "Activation maps"),
    ("provenance", "Provenance"),
)


def render(summary: Mapping[str, Any], parts: Mapping[str, Any] | None = None) -> str:
    """Returns the page for a ``summary.json`` (the JSON of :class:`models.results.Summary`) and the parts.

    Args:
        summary: Summary of a reproduction, empty without one. Any key may be missing or empty.
        parts: Parts by name, from :func:`tasks.report.results.load_parts`; the page shows absent parts as missing,
            with the command that makes them.
    """
    cleaned: Json = clean(summary)
    available: Json = clean(parts or {})
    profile = next((str(entry["profile"]) for entry in (cleaned, *available.values()) if _has_profile(entry)), None)
    statuses = {
        name: provenance.status(mapping(available, name), verb, profile) for name, (verb, _) in provenance.PARTS.items()
    }
    rows = family.facts(cleaned)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            about=_about(cleaned, profile),
            missing=lines(cleaned, "missing"),
            parts=statuses,
            contents=_contents(cleaned, available),
            reproduce=provenance.make("reproduce", profile),
            family=rows,
            search=search.facts(cleaned),
            architecture=architecture.facts(mapping(available, "architecture")),
            scaling=scaling.facts(mapping(available, "scaling")),
            latency=latency.facts(mapping(available, "latency")),
            transfer=transfer.facts(cleaned, mapping(available, "transfer")),
            maps=maps.facts(mapping(available, "maps")),
            provenance=provenance.facts(cleaned, available, profile),
            paper=paper,
            **_assets(),
        )
    )


def _has_profile(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("profile") not in (None, "")


def _about(summary: Json, profile: str | None) -> Json:
    about = typed(summary, ("wall_s", "jobs", "jobs_found"), ("commit", "started", "finished", "command"))
    return about | {"there": bool(summary), "profile": profile}


def _contents(summary: Json, parts: Json) -> list[Json]:
    """All sections, with whether this run has results for them."""
    filled = {
        "table2": bool(summary.get("variants")),
        "figures": bool(summary.get("variants")),
        "search": bool(mapping(summary, "search").get("trials")),
        "provenance": True,
    } | {name: bool(mapping(parts, name)) for name in provenance.PARTS}
    filled["transfer"] = filled["transfer"] or bool(summary.get("transfer"))
    return [{"id": name, "title": title, "filled": filled[name]} for name, title in CONTENTS]


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


def markdown_table(summary: Mapping[str, Any]) -> str:
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
    for row in family.variant_rows(clean(summary)):
        ours, theirs = row["ours"], row["paper"]
        cells = {key: plain(ours[key] if ours else None, spec) for key, spec in specs.items()}
        if ours is None:
            cells["top1"] = "not run"
        elif ours["se1"] is not None:
            cells["top1"] += f" ± {ours['se1']:.2f}"
        last = ["\N{EM DASH}"] * 4
        if theirs:
            last = [f"{theirs.params_m:g} M", f"{theirs.flops_b:g} B", f"{theirs.top1}", f"{theirs.top5}"]
        # A custom name may hold any character; a bar or a tag would break the table or the page.
        name = re.sub(r"([|<>`\[\]\\])", r"\\\1", " ".join(row["short"].split()))
        lines.append(f"| {' | '.join([name, *cells.values(), *last])} |")
    return "\n".join(lines) + "\n"
