"""The verbs that read what has been done: models, runs, logs, diff. They change nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from conf.text import did_you_mean, format_duration
from flows.cli.command import Command, announce, show, show_table
from flows.cli.services import connect
from infra.errors import ConfigError, NotFoundError
from infra.launch.local import LOG_OBJECT
from infra.tracking.registry import WEIGHTS_TAG
from tasks.metrics import RESULT_METRICS, RESULT_TAGS

if TYPE_CHECKING:
    from infra.tracking.queries import RunRecord
    from infra.tracking.registry import Version

SHOWN_RUNS = 30
SLURM_LOGS = "slurm-*.txt"  # on this machine or, of a failed job, in its run folder
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")  # SHA-256
_FRACTION = re.compile(r"-?\d+\.\d+")
PROVENANCE = ("mlflow.source.git.commit", "data_manifest_sha256", "job_uri", "profile", "role")


def models(command: Command) -> int:
    """Lists the registered models, each by its champion or else its newest version; or all versions of one."""
    connect(command, "mlflow")
    from infra.tracking import queries

    versions = queries.list_models()
    versions = _versions_of(versions, command.objects[0]) if command.objects else _one_per_model(versions)
    rows = [_describe_version(version) for version in versions]
    if command.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        show("no registered models; `effnet reproduce` and `effnet import` register some")
    else:
        titles = ["model", "version", "aliases", "data", "top-1 %", "± (95 %)", "params", "multiply-adds", "px"]
        cells = [[_cell(value) for value in row.values()] for row in rows]
        show_table(titles, cells, right=titles[4:])
    return 0


def _versions_of(versions: list[Version], word: str) -> list[Version]:
    """All versions of the model of this name, or else the models whose name or data contain the word."""
    if named := [version for version in versions if version.name == word]:
        return named
    similar = [v for v in _one_per_model(versions) if word in v.name or word in v.tags.get("dataset", "")]
    if not similar:
        names = sorted({version.name for version in versions})
        hint = did_you_mean(word, names)
        raise ConfigError(
            " ".join(filter(None, [f"no registered model contains {word!r};", hint, "`effnet models` lists them"]))
        )
    return similar


def _one_per_model(versions: list[Version]) -> list[Version]:
    chosen: dict[str, Version] = {}
    for version in versions:  # the newest version of a model comes first
        if version.name not in chosen or "champion" in version.aliases:
            chosen[version.name] = version
    return list(chosen.values())


def _describe_version(version: Version) -> dict[str, Any]:
    tags = version.tags
    return {
        "model": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "dataset": tags.get("dataset", ""),
        "top1": _number(tags.get("top1")),
        "ci95": _number(tags.get("ci95")),
        "params": _whole(tags.get("params")),
        "multiply_adds": _whole(tags.get("multiply_adds")),
        "resolution": _whole(tags.get("resolution")),
    }


def runs(command: Command) -> int:
    """Lists the newest runs, or those whose name or key contains a word."""
    connect(command, "mlflow")
    from infra.tracking import queries

    count = queries.SEARCHED_RUNS if command.objects else SHOWN_RUNS
    listed = queries.list_runs(command.config.experiment, count)
    if command.objects:
        listed = [run for run in listed if command.objects[0] in run.name or command.objects[0] in run.key]
    if command.json:
        print(json.dumps([asdict(run) for run in listed], indent=2))
    elif not listed:
        show(f"no runs in the experiment {command.config.experiment!r}")
    else:
        titles = ["run", "name", "state", "started", "time", "top-1 %"]
        show_table(titles, [_run_cells(run) for run in listed], right=["time", "top-1 %"])
        if len(listed) == SHOWN_RUNS and not command.objects:
            announce(f"the newest {SHOWN_RUNS}; `effnet runs NAME` searches all by a part of their name")
    return 0


def _run_cells(run: RunRecord) -> list[str]:
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
    top1 = run.metrics.get("val/top1")
    return [run.id[:8], run.name, run.status.lower(), started, format_duration(run.seconds), _cell(top1)]


def logs(command: Command) -> int:
    """Prints what the workers of a job wrote, or else its epochs."""
    connect(command, "mlflow", "s3")
    from infra import store
    from infra.tracking import queries
    from infra.tracking.runs import WORKER_TAG

    run = queries.find_run(command.config.experiment, command.objects[0])
    job_uri = run.tags.get("job_uri", "")
    if not job_uri:
        raise ConfigError(f"{run.name} is no job, it has no log of its own; `effnet runs` lists its jobs")
    folder = command.run_dir / "jobs" / run.key
    path = folder / "log.txt"
    written = [file for file in (path, *folder.glob(SLURM_LOGS)) if file.exists()]
    if written:
        path = max(written, key=lambda file: file.stat().st_mtime)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            show(line)
        return 0
    machine = run.tags.get(WORKER_TAG) or "another machine"
    kept = [
        entry
        for entry in store.list_entries(job_uri)
        if fnmatch(entry.uri, f"*/{SLURM_LOGS}") or entry.uri.endswith(f"/{LOG_OBJECT}")
    ]
    newest = sorted(kept, key=lambda entry: entry.modified, reverse=True)  # as text, slurm-99 would follow slurm-100
    texts = [(entry.uri, "the end of its log") for entry in newest]
    texts.append((store.join(job_uri, "metrics.jsonl"), "its log is there; its epochs"))
    for uri, what in texts:
        with suppress(NotFoundError):
            text = store.read(uri).decode(errors="replace")
            announce(f"{run.name} ran on {machine}; {what}:")
            for line in text.splitlines():
                show(line)
            return 0
    raise ConfigError(f"{run.name} has no log at {path} and no epoch yet: it runs on {machine}, which keeps its log")


def diff(command: Command) -> int:
    """Prints where two runs, or the runs of two registered versions, differ: settings, provenance, results."""
    connect(command, "mlflow")
    (first_title, first), (second_title, second) = (_resolve(command, word) for word in command.objects)
    if first_title == second_title:  # two runs of one name
        first_title, second_title = (f"{run.name} {run.id[:8]}" for run in (first, second))
    sections = {
        "settings": _differences(first.params, second.params),
        "provenance": _differences(_provenance(first), _provenance(second)),
        "results": _differences(_final(first), _final(second)),
    }
    if command.json:
        print(json.dumps(sections, indent=2))
        return 0
    rows: list[tuple[str, ...]] = []
    for title, section in sections.items():
        rows += [(title, "", "")] if section else []
        rows += [(f"  {key}", *_readable(*values)) for key, values in section.items()]
    if rows:
        show_table(["", first_title, second_title], rows)
    else:
        show(f"{first_title} and {second_title} do not differ")
    return 0


def _resolve(command: Command, word: str) -> tuple[str, RunRecord]:
    """The title of a registered version or a run in a comparison, and its run."""
    from infra.tracking import queries, registry

    if "@" in word or "/" in word:
        version = registry.resolve_version(word)
        if not version.run_id:
            raise ConfigError(f"{word} has no run that made it, so there is nothing to compare")
        run = queries.read_run(version.run_id)
        weights = {key: value for key, value in version.tags.items() if key == WEIGHTS_TAG}
        return f"{version.name}/{version.version}", replace(run, tags={**run.tags, **weights})
    run = queries.find_run(command.config.experiment, word)
    return run.name, run


def _provenance(run: RunRecord) -> dict[str, str]:
    kept = PROVENANCE + tuple(key for key in run.tags if key.startswith("machine.") or key == WEIGHTS_TAG)
    return {key: run.tags.get(key, "") for key in kept}


def _final(run: RunRecord) -> dict[str, str]:
    metrics = {name: f"{run.metrics[name]:g}" for name in RESULT_METRICS.values() if name in run.metrics}
    return metrics | {tag: run.tags[tag] for tag in RESULT_TAGS.values() if tag in run.tags}


def _differences(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    keys = sorted({*first, *second})
    both = {key: (first.get(key, "-"), second.get(key, "-")) for key in keys}
    return {key: values for key, values in both.items() if values[0] != values[1]}


def _readable(first: str, second: str) -> tuple[str, str]:
    """Two values with digests of 12 places and numbers of four, unless they would be equal then."""
    short = tuple(
        f"{float(value):.4g}" if _FRACTION.fullmatch(value) else _DIGEST.sub(lambda digest: f"{digest[0][:12]}…", value)
        for value in (first, second)
    )
    return (short[0], short[1]) if short[0] != short[1] else (first, second)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value) or "-"


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else round(number)
