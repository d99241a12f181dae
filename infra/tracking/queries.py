"""Reads the registry and the runs for people: lists, look-ups by a part of a name, differences. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from conf.text import did_you_mean
from infra.errors import ConfigError
from infra.tracking.client import connection
from infra.tracking.registry import Version, versions
from infra.tracking.runs import KEY_TAG, WORKER_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

_PAGE = 1000  # MLflow's largest page of models
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


def list_models() -> list[Version]:
    """Returns all versions of all registered models with their aliases, by name, newest version first."""
    with connection() as client:
        aliases: dict[str, dict[str, str]] = {}
        page = None
        while True:
            batch = client.search_registered_models(max_results=_PAGE, page_token=page)
            aliases |= {model.name: model.aliases for model in batch}
            if not (page := batch.token):
                break
    listed: list[Version] = []
    for name in sorted(aliases):
        for version in reversed(versions(name)):  # MLflow's search leaves their aliases empty
            held = sorted(alias for alias, number in aliases[name].items() if int(number) == version.version)
            listed.append(replace(version, aliases=tuple(held)))
    return listed


def list_runs(experiment: str, count: int) -> list[RunRecord]:
    """Returns the last ``count`` runs of an experiment, newest first; none if it does not exist."""
    with connection() as client:
        existing = client.get_experiment_by_name(experiment)
        if existing is None:
            return []
        order = ["attributes.start_time DESC"]
        return [
            _to_record(run) for run in client.search_runs([existing.experiment_id], order_by=order, max_results=count)
        ]


def list_job_uris() -> set[str]:
    """Returns the run folders of the jobs of all runs in all experiments, but for runs that were deleted."""
    with connection() as client:
        experiments, page = [], None
        while True:
            listed = client.search_experiments(max_results=_PAGE, page_token=page)
            experiments += [experiment.experiment_id for experiment in listed]
            if not (page := listed.token):
                break
        uris: set[str] = set()
        while True:
            runs = client.search_runs(experiments, max_results=_PAGE, page_token=page)
            uris |= {run.data.tags["job_uri"] for run in runs if "job_uri" in run.data.tags}
            if not (page := runs.token):
                return uris


def list_workers(run_ids: Iterable[str]) -> list[str]:
    """Returns the names of the machines or workers that ran the jobs of these runs, sorted."""
    with connection() as client:
        tags = [client.get_run(run_id).data.tags for run_id in run_ids]
    return sorted({tag[WORKER_TAG] for tag in tags if WORKER_TAG in tag})


def read_run(run_id: str) -> RunRecord:
    """Returns a run by its id."""
    with connection() as client:
        return _to_record(client.get_run(run_id))


def find_run(experiment: str, word: str) -> RunRecord:
    """Finds a run by its id, its key, or the beginning of either, or else the newest run of that name.

    Raises:
        ConfigError: No run, or several by this beginning; the message names the nearest.
    """
    runs = list_runs(experiment, SEARCHED_RUNS)
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
    hint = did_you_mean(word, {name for run in runs for name in (run.name, run.key)})
    raise ConfigError(
        " ".join(filter(None, [f"no run {word!r} in the experiment {experiment!r};", hint, "`effnet runs` lists them"]))
    )


def _to_record(run: Run) -> RunRecord:
    ended = run.info.end_time or time.time() * 1000
    started = run.info.start_time or ended
    tags = dict(run.data.tags)
    return RunRecord(
        run.info.run_id,
        run.info.run_name,
        tags.get(KEY_TAG, ""),
        run.info.status,
        started / 1000,
        (ended - started) / 1000,
        tags.get("mlflow.parentRunId", ""),
        dict(run.data.params),
        dict(run.data.metrics),
        tags,
    )
