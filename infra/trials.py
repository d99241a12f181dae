"""Stores the trials of a search in a database that several machines may share. Only this file imports Optuna.

The same database, name and seed propose the same trials: a proposal depends on the seed and the trial number, never
on the number of restarts. A trial whose process died is requeued: immediately by the same machine, by others after
``GRACE_S`` without a heartbeat (unix seconds, so clocks must differ by less than that).
"""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infra.errors import ConfigError, TransientError, first_line
from infra.services import proctable

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

BEAT_S, GRACE_S = 10.0, 45.0
STATES = {"COMPLETE": "complete", "PRUNED": "refused", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
SAMPLERS = ("nsga2", "tpe")
BUSY_TIMEOUT_S = 60  # SQLite: longest wait for another writer


@dataclass(frozen=True)
class TrialRecord:
    """One trial as stored in the database."""

    number: int
    point: dict[str, Any]
    state: str  # complete | refused | failed | running | waiting | abandoned (its process died; requeued)
    facts: dict[str, Any]
    beat: float  # unix seconds of its last heartbeat
    owner: tuple[str, int, str] = ("", 0, "")  # machine, process id, start time of that process


@dataclass
class Trials:
    """An open search."""

    study: Study
    address: str
    asking: threading.Lock = field(default_factory=threading.Lock)  # held from the budget check to ask()


def check_address(url: str) -> None:
    """Refuses an address with a password, of no database, or of one whose driver is not installed; opens nothing.

    Raises:
        ConfigError: It is one.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if urlsplit(url).password is not None:
        raise ConfigError("architecture.storage must hold no password: use the variables of the database's driver")
    try:
        make_url(url).get_dialect().import_dbapi()
    except (ArgumentError, ImportError) as error:
        raise ConfigError(f"architecture.storage={url}: {first_line(error)}") from error


def open_trials(url: str, name: str, *, directions: Sequence[str], sampler: str, startup: int, seed: int) -> Trials:
    """Opens a search, creating it if it does not exist.

    Args:
        url: SQLAlchemy URL of a database, ``sqlite:////folder/file.db`` or ``postgresql+psycopg://host/name``;
            the driver reads the password from its variables or files (PGPASSFILE), never from the URL.
        name: Name of the search, a digest of its request.
        directions: ``maximize`` or ``minimize`` for every value of a trial.
        sampler: Sampler, ``nsga2`` or ``tpe``.
        startup: Size of a generation (nsga2), or number of random trials before the model is used (tpe).
        seed: Seed of the proposals.

    Raises:
        ConfigError: The URL is invalid, or its driver is not installed.
        TransientError: The database does not answer.
    """
    optuna = _library()
    check_address(url)
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    arguments = {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if url.startswith("sqlite") else {}
    trial_sampler = _create_per_trial_sampler(
        lambda number: _create_sampler(sampler, startup, _derive_seed(seed, number))
    )
    with _translate_errors(url):
        storage = optuna.storages.RDBStorage(url, engine_kwargs=arguments)
        if url.startswith("sqlite"):
            _disable_syncs(storage.engine)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=list(directions), sampler=trial_sampler, load_if_exists=True
        )
    return Trials(study, url)


def _disable_syncs(engine: Any) -> None:
    """Sets SQLite to WAL mode: a proposal makes about fifty commits, whose disk syncs would take a second in total.

    A killed process loses nothing; a power failure may lose the last commits, but never corrupts the file.
    """
    from sqlalchemy import event

    def prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(engine, "connect", prepare)
    engine.dispose()  # apply to connections that already exist


def enqueue(trials: Trials, point: Mapping[str, Any]) -> None:
    """Queues a point ahead of the sampler's proposals, unless it was proposed before."""
    with _translate_errors(trials.address):
        trials.study.enqueue_trial(dict(point), skip_if_exists=True)


def ask(trials: Trials, choices: Mapping[str, Sequence[Any]]) -> Trial:
    """Returns the next trial; each of its ``params`` is one of the choices."""
    from optuna.distributions import CategoricalDistribution

    space: dict[str, Any] = {name: CategoricalDistribution(tuple(options)) for name, options in choices.items()}
    with _translate_errors(trials.address):
        trial = trials.study.ask(space)
        trial.set_user_attr("owner", [platform.node(), os.getpid(), proctable.born(os.getpid())])
        trial.set_user_attr("beat", time.time())
    return trial


def record_heartbeat(trials: Trials, trial: Trial) -> None:
    """Records that the trial's process is alive, unless the trial is finished; due every ``BEAT_S``."""
    with _translate_errors(trials.address), suppress(_library().exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("beat", time.time())


def complete(trials: Trials, trial: Trial, values: Sequence[float], facts: Mapping[str, Any]) -> None:
    """Records a trained trial, ``values`` in the order of the directions; does nothing if it is already finished."""
    _finish(trials, trial, "COMPLETE", facts, values)


def refuse(trials: Trials, trial: Trial, excess: Mapping[str, float], facts: Mapping[str, Any]) -> None:
    """Records a trial that violates constraints and is not run; the sampler learns from each positive excess."""
    with _translate_errors(trials.address):
        for name, value in excess.items():
            trial.set_constraint(name, value)
    _finish(trials, trial, "PRUNED", facts)


def fail(trials: Trials, trial: Trial, facts: Mapping[str, Any]) -> None:
    """Records a trial that ended without a value; ``facts`` hold the reason."""
    _finish(trials, trial, "FAIL", facts)


def requeue(trials: Trials, number: int) -> None:
    """Ends a trial whose process is gone and requeues its point; of concurrent callers, exactly one succeeds."""
    with _translate_errors(trials.address):
        point = dict(trials.study.trials[number].params)
        try:
            trials.study.tell(number, state=_trial_state("FAIL"))
        except ValueError:  # another caller was first, or the trial has ended
            return
        trials.study.enqueue_trial(point)


def list_trials(trials: Trials) -> list[TrialRecord]:
    """Returns all trials so far, ordered by number."""
    with _translate_errors(trials.address):
        rows = trials.study.get_trials(deepcopy=False)
    return [_to_record(trial) for trial in rows]


def _to_record(trial: Any) -> TrialRecord:
    facts = {key: value for key, value in trial.user_attrs.items() if key not in ("beat", "owner")}
    state = STATES[trial.state.name]
    if state == "failed" and "reason" not in facts:
        state = "abandoned"
    started = trial.datetime_start.timestamp() if trial.datetime_start else time.time()
    host, pid, born = trial.user_attrs.get("owner", ("", 0, ""))
    beat = float(trial.user_attrs.get("beat", started))
    return TrialRecord(trial.number, dict(trial.params), state, facts, beat, (host, pid, born))


def find_lost(records: Sequence[TrialRecord], now: float) -> list[int]:
    """Returns the numbers of the running trials whose heartbeat stopped or whose process died."""
    return [t.number for t in records if t.state == "running" and (now - t.beat > GRACE_S or _is_dead(t.owner))]


def _is_dead(owner: tuple[str, int, str]) -> bool:
    """Whether the owner was a process of this machine that no longer exists."""
    host, pid, born = owner
    return host == platform.node() and proctable.born(pid) != born


def _finish(
    trials: Trials, trial: Trial, state: str, facts: Mapping[str, Any], values: Sequence[float] | None = None
) -> None:
    # Another worker may have requeued the trial because its heartbeat stopped.
    with _translate_errors(trials.address), suppress(_library().exceptions.UpdateFinishedTrialError):
        for key, value in facts.items():
            trial.set_user_attr(key, value)
        trials.study.tell(trial, values, state=_trial_state(state), skip_if_finished=True)


def _trial_state(name: str) -> Any:
    return _library().trial.TrialState[name]


def _library() -> Any:
    """Imports Optuna, without log noise, on first use because it takes half a second."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _create_sampler(kind: str, startup: int, seed: int) -> BaseSampler:
    samplers = _library().samplers
    created: BaseSampler = (
        samplers.NSGAIISampler(population_size=startup, seed=seed)
        if kind == "nsga2"
        else samplers.TPESampler(n_startup_trials=startup, seed=seed)
    )
    return created


def _derive_seed(seed: int, number: int) -> int:
    """Returns 32 bits for one trial; with a sum, trial n of seed 1 would equal trial n+1 of seed 0."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4])


def _create_per_trial_sampler(make: Callable[[int], BaseSampler]) -> BaseSampler:
    """Returns a sampler that is recreated per trial: a resumed search proposes the trials of an uninterrupted one."""
    from optuna.samplers import BaseSampler as Base

    samplers: dict[int, BaseSampler] = {}

    def sampler_of(trial: Any) -> BaseSampler:
        if trial.number not in samplers:
            samplers[trial.number] = make(trial.number)
        return samplers[trial.number]

    class ByNumber(Base):
        def before_trial(self, study: Study, trial: Any) -> None:
            sampler_of(trial).before_trial(study, trial)

        def infer_relative_search_space(self, study: Study, trial: Any) -> dict[str, Any]:
            return sampler_of(trial).infer_relative_search_space(study, trial)

        def sample_relative(self, study: Study, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
            return sampler_of(trial).sample_relative(study, trial, search_space)

        def sample_independent(self, study: Study, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return sampler_of(trial).sample_independent(study, trial, param_name, param_distribution)

        def after_trial(self, study: Study, trial: Any, state: Any, values: Sequence[float] | None) -> None:
            sampler_of(trial).after_trial(study, trial, state, values)
            samplers.pop(trial.number, None)

    return ByNumber()


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
    """Translates errors of the database into ``TransientError``."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        raise TransientError(f"the database of the trials, {url}: {first_line(cause)}") from error
