"""Reads the registry and the runs for people: lists, look-ups by a part of a name, differences. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from conf.text import did_you_mean
from infra.errors import ConfigError
from infra.tracking import registry, rest
from infra.tracking.registry import Version
from infra.tracking.runs import KEY_TAG, WORKER_TAG

_PAGE = 1000  # runs or experiments in an answer
SEARCHED_RUNS = 5000  # newest runs among which one is searched by a part of its name


@dataclass(frozen=True)
class RunRecord:
    """A run in MLflow.

    Attributes:
        id: MLflow's id.
        name: Display name.
        key: Digest of the request; for a job also the last component of its run folder.
        status: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        started: Unix seconds.
        seconds: Duration; until now for a run that has not ended.
        parent: Id of the parent run, empty without one.
    """

    id: str
    name: str
    key: str
    status: str
    started: float
    seconds: float
    parent: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class References:
    """What runs point to.

    Attributes:
        jobs: Run folders of their jobs, without those of nights.
        versions: ``NAME/VERSION`` that they started from, or evaluated.
        nights: Ids of the runs that are trainings of nights.
        night_jobs: Run folders of trainings of nights.
    """

    jobs: frozenset[str]
    versions: frozenset[str]
    nights: frozenset[str]
    night_jobs: frozenset[str] = frozenset()


def list_models() -> list[Version]:
    """Returns all versions of all registered models with their aliases, by name, newest version first."""
    aliases = {model["name"]: registry.aliases(model) for model in registry.search_models()}
    listed: list[Version] = []
    for name in sorted(aliases):
        for version in reversed(registry.versions(name)):  # MLflow's search leaves their aliases empty
            held = sorted(alias for alias, number in aliases[name].items() if number == version.version)
            listed.append(replace(version, aliases=tuple(held)))
    return listed


def list_runs(experiment: str, count: int) -> list[RunRecord]:
    """Returns the last ``count`` runs of an experiment, newest first; none if it does not exist."""
    try:
        existing = rest.get("experiments/get-by-name", experiment_name=experiment)["experiment"]
    except rest.MissingError:
        return []
    runs = _search_runs([existing["experiment_id"]], min(count, _PAGE))
    return [_to_record(run) for run in islice(runs, count)]


def list_references() -> References:
    """Returns what the runs of all experiments point to; deleted runs do not count."""
    records = [_to_record(run) for run in _search_runs(_experiments(), _PAGE)]
    nights = [run for run in records if run.tags.get("role") == "nightly"]

    def collect(runs: Iterable[RunRecord], *tags: str) -> frozenset[str]:
        return frozenset(run.tags[tag] for run in runs for tag in tags if tag in run.tags)

    others = [run for run in records if run.tags.get("role") != "nightly"]
    return References(
        collect(others, "job_uri"),
        collect(records, "parent", "model_ref"),
        frozenset(run.id for run in nights),
        collect(nights, "job_uri"),
    )


def _experiments() -> list[str]:
    """Ids of all experiments."""
    pages = rest.pages("POST", "experiments/search", "experiments", max_results=_PAGE)
    return [experiment["experiment_id"] for experiment in pages]


def _search_runs(experiments: Sequence[str], page: int) -> Iterator[dict[str, Any]]:
    order = ["attributes.start_time DESC"]
    return rest.pages("POST", "runs/search", "runs", experiment_ids=experiments, max_results=page, order_by=order)


def list_workers(run_ids: Iterable[str]) -> list[str]:
    """Returns the names of the machines or workers that ran the jobs of these runs, sorted."""
    tags = [read_run(run_id).tags for run_id in run_ids]
    return sorted({tag[WORKER_TAG] for tag in tags if WORKER_TAG in tag})


def read_run(run_id: str) -> RunRecord:
    """Returns a run by its id."""
    return _to_record(rest.get("runs/get", run_id=run_id)["run"])


def find_run(experiment: str, word: str) -> RunRecord:
    """Finds a run by its id, its key, or the beginning of either, or else the newest run of that name.

    Args:
        experiment: Experiment that is searched first; the others follow if it has no such run.
        word: Id, key, beginning or name.

    Raises:
        ConfigError: No run, or several by this beginning; the message names the nearest.
    """
    if run := _pick_run(runs := list_runs(experiment, SEARCHED_RUNS), word):
        return run
    everywhere = [_to_record(run) for run in islice(_search_runs(_experiments(), _PAGE), SEARCHED_RUNS)]
    if run := _pick_run(everywhere, word):
        return run
    hint = did_you_mean(word, {name for run in (*runs, *everywhere) for name in (run.name, run.key)})
    raise ConfigError(
        " ".join(filter(None, [f"no run {word!r} in the experiment {experiment!r};", hint, "`effnet runs` lists them"]))
    )


def _pick_run(runs: Sequence[RunRecord], word: str) -> RunRecord | None:
    """The run that a word means among these; None without one, ConfigError for several."""
    exact = [run for run in runs if word in (run.id, run.key)]
    begins = [run for run in runs if run.id.startswith(word) or run.key.startswith(word)]
    named = [run for run in runs if run.name == word]
    if matches := exact or named[:1]:
        return matches[0]
    if len(begins) == 1:
        return begins[0]
    if begins:
        keys = ", ".join(run.key for run in begins[:3])
        raise ConfigError(f"{len(begins)} runs begin with {word!r}, the newest are {keys}: write more of it")
    return None


def _to_record(run: Mapping[str, Any]) -> RunRecord:
    info, data = run["info"], run.get("data", {})
    ended = int(info.get("end_time") or time.time() * 1000)
    started = int(info.get("start_time") or ended)
    params, metrics, tags = (
        {entry["key"]: entry["value"] for entry in data.get(name, [])} for name in ("params", "metrics", "tags")
    )
    return RunRecord(
        info["run_id"],
        info.get("run_name", ""),
        tags.get(KEY_TAG, ""),
        info["status"],
        started / 1000,
        (ended - started) / 1000,
        tags.get("mlflow.parentRunId", ""),
        params,
        {name: float(value) for name, value in metrics.items()},
        tags,
    )
