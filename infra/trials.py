"""A search's proposals and what came of them, in a database that several machines may share. Only this imports Optuna.

The same database, name and seed propose the same trials: a proposal is drawn from the seed and its own number, never
from how often the search was started. A trial whose process died is given out again: at once by its own machine, by
others after ``GRACE_S`` without a sign of life (unix seconds, so their clocks may differ by less than that).
"""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
BUSY_TIMEOUT_S = 60  # SQLite: how long a writer waits for another


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the database has it."""

    number: int
    point: dict[str, Any]
    state: str  # complete | refused | failed | running | waiting | abandoned (its process died; given out again)
    facts: dict[str, Any]
    beat: float  # unix seconds of its last sign of life
    owner: tuple[str, int, str] = ("", 0, "")  # machine, process number, when that process was born


@dataclass
class Trials:
    """An open search."""

    study: Study
    address: str
    asking: threading.Lock = field(default_factory=threading.Lock)  # held by who looks what is left and asks for it


def open_trials(url: str, name: str, *, directions: Sequence[str], sampler: str, startup: int, seed: int) -> Trials:
    """Opens a search, or begins it.

    Args:
        url: of a database in SQLAlchemy's words, ``sqlite:////folder/file.db`` or ``postgresql+psycopg://host/name``;
            a password stands in the driver's own variables or files (PGPASSFILE), never in the address.
        name: of the search; what is asked for, as a digest.
        directions: ``maximize`` or ``minimize`` for each value of a trial.
        sampler: ``nsga2`` or ``tpe``.
        startup: the size of a generation (nsga2), or how many trials are random before it learns (tpe).
        seed: of the proposals.

    Raises:
        ConfigError: the address is none, or its driver is not installed.
        TransientError: the database does not answer.
    """
    optuna = _library()
    from sqlalchemy.exc import ArgumentError

    if urlsplit(url).password is not None:
        raise ConfigError("architecture.storage must hold no password: the database's driver has its own variables")
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    arguments = {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if url.startswith("sqlite") else {}
    by_number = _by_number(lambda number: _sampler(sampler, startup, _seed(seed, number)))
    with _translated(url):
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=arguments)
        except (ArgumentError, ImportError) as error:
            raise ConfigError(f"architecture.storage={url}: {first_line(error)}") from error
        if url.startswith("sqlite"):
            _without_syncs(storage.engine)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=list(directions), sampler=by_number, load_if_exists=True
        )
    return Trials(study, url)


def _without_syncs(engine: Any) -> None:
    """SQLite in WAL mode: a proposal is some fifty commits, and a disk's sync after each would cost a second of them.

    A killed process loses nothing; a machine that loses its power may lose the last commits, never the file.
    """
    from sqlalchemy import event

    def prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(engine, "connect", prepare)
    engine.dispose()  # connections made before take it up too


def enqueue(trials: Trials, point: Mapping[str, Any]) -> None:
    """Proposes a point before the sampler does, unless it was proposed before."""
    with _translated(trials.address):
        trials.study.enqueue_trial(dict(point), skip_if_exists=True)


def ask(trials: Trials, choices: Mapping[str, Sequence[Any]]) -> Trial:
    """The next trial; its ``params`` are one of the choices each."""
    from optuna.distributions import CategoricalDistribution

    space: dict[str, Any] = {name: CategoricalDistribution(tuple(options)) for name, options in choices.items()}
    with _translated(trials.address):
        trial = trials.study.ask(space)
        trial.set_user_attr("owner", [platform.node(), os.getpid(), proctable.born(os.getpid())])
        trial.set_user_attr("beat", time.time())
    return trial


def record_heartbeat(trials: Trials, trial: Trial) -> None:
    """Says that the trial's process lives; due every ``BEAT_S``."""
    with _translated(trials.address):
        trial.set_user_attr("beat", time.time())


def complete(trials: Trials, trial: Trial, values: Sequence[float], facts: Mapping[str, Any]) -> None:
    """A trained trial; ``values`` in the order of the directions. Nothing happens where it is finished already."""
    _end(trials, trial, "COMPLETE", facts, values)


def refuse(trials: Trials, trial: Trial, excess: Mapping[str, float], facts: Mapping[str, Any]) -> None:
    """A trial that breaks constraints and is not run; each positive excess tells the sampler how far it was off."""
    with _translated(trials.address):
        for name, value in excess.items():
            trial.set_constraint(name, value)
    _end(trials, trial, "PRUNED", facts)


def fail(trials: Trials, trial: Trial, facts: Mapping[str, Any]) -> None:
    """A trial that ended without a value; ``facts`` hold its reason."""
    _end(trials, trial, "FAIL", facts)


def requeue(trials: Trials, number: int) -> None:
    """Ends a trial whose process is gone and queues its point; of several who try, one does."""
    with _translated(trials.address):
        point = dict(trials.study.trials[number].params)
        try:
            trials.study.tell(number, state=_state("FAIL"))
        except ValueError:  # another was first, or it has ended after all
            return
        trials.study.enqueue_trial(point)


def list_trials(trials: Trials) -> list[TrialRecord]:
    """All trials so far, by number."""
    with _translated(trials.address):
        found = trials.study.get_trials(deepcopy=False)
    return [_known(trial) for trial in found]


def _known(trial: Any) -> TrialRecord:
    facts = {key: value for key, value in trial.user_attrs.items() if key not in ("beat", "owner")}
    state = STATES[trial.state.name]
    if state == "failed" and "reason" not in facts:
        state = "abandoned"
    started = trial.datetime_start.timestamp() if trial.datetime_start else time.time()
    host, pid, born = trial.user_attrs.get("owner", ("", 0, ""))
    beat = float(trial.user_attrs.get("beat", started))
    return TrialRecord(trial.number, dict(trial.params), state, facts, beat, (host, pid, born))


def find_lost(found: Sequence[TrialRecord], now: float) -> list[int]:
    """Numbers of the trials that run without a sign of life."""
    return [t.number for t in found if t.state == "running" and (now - t.beat > GRACE_S or _is_dead(t.owner))]


def _is_dead(owner: tuple[str, int, str]) -> bool:
    """Whether it was a process of this machine that is gone."""
    host, pid, born = owner
    return host == platform.node() and proctable.born(pid) != born


def _end(
    trials: Trials, trial: Trial, state: str, facts: Mapping[str, Any], values: Sequence[float] | None = None
) -> None:
    with _translated(trials.address):
        for key, value in facts.items():
            trial.set_user_attr(key, value)
        trials.study.tell(trial, values, state=_state(state), skip_if_finished=True)


def _state(name: str) -> Any:
    return _library().trial.TrialState[name]


def _library() -> Any:
    """Imports Optuna, quiet; here because it takes half a second."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(kind: str, startup: int, seed: int) -> BaseSampler:
    samplers = _library().samplers
    made: BaseSampler = (
        samplers.NSGAIISampler(population_size=startup, seed=seed)
        if kind == "nsga2"
        else samplers.TPESampler(n_startup_trials=startup, seed=seed)
    )
    return made


def _seed(seed: int, number: int) -> int:
    """32 bits for one trial; not a sum, or the trials of seed 1 would be those of seed 0 one later."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4])


def _by_number(make: Callable[[int], BaseSampler]) -> BaseSampler:
    """A sampler that is made anew for each trial, so that a resumed search proposes what an undisturbed one would."""
    from optuna.samplers import BaseSampler as Base

    made: dict[int, BaseSampler] = {}

    def of(trial: Any) -> BaseSampler:
        if trial.number not in made:
            made[trial.number] = make(trial.number)
        return made[trial.number]

    class ByNumber(Base):
        def before_trial(self, study: Study, trial: Any) -> None:
            of(trial).before_trial(study, trial)

        def infer_relative_search_space(self, study: Study, trial: Any) -> dict[str, Any]:
            return of(trial).infer_relative_search_space(study, trial)

        def sample_relative(self, study: Study, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
            return of(trial).sample_relative(study, trial, search_space)

        def sample_independent(self, study: Study, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return of(trial).sample_independent(study, trial, param_name, param_distribution)

        def after_trial(self, study: Study, trial: Any, state: Any, values: Sequence[float] | None) -> None:
            of(trial).after_trial(study, trial, state, values)
            made.pop(trial.number, None)

    return ByNumber()


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """The database's errors as ours."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        raise TransientError(f"the database of the trials, {url}: {first_line(cause)}") from error
