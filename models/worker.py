"""What both torchrun doors share: one argument in, the group joined, errors told once, status written."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import compose
from conf.schema import Job
from conf.text import escaped, first_line, logger
from infra import store
from infra.errors import (
    ConfigError,
    DataError,
    EffnetError,
    JobError,
    LostError,
    PreemptedError,
    TransientError,
    kind_of,
)
from infra.store.json_objects import read_object
from models.results import result_name
from models.training import distributed
from models.training.distributed import Ranks
from models.training.supervision.faults import Faults
from models.training.supervision.preemption import Preemption
from models.training.supervision.progress import Progress
from models.training.supervision.startup import Startup
from models.training.supervision.watchdog import Watchdog


@dataclass(frozen=True)
class Worker:
    """What a job's main function gets besides the job."""

    job_uri: str
    ranks: Ranks
    cache: Path
    progress: Progress | None  # rank 0 only
    preemption: Preemption
    watchdog: Watchdog
    faults: Faults
    startup: Startup


CAUSE_S = 2.0  # a rank that only lost its peers leaves it to them to name the cause first
JobMain = Callable[[Job, Worker], dict[str, Any]]


def run(main: JobMain) -> int:
    """Runs a job's main function on this rank; the exit code is in ``infra/errors.py``.

    The one argument is the uri of the run folder, which holds ``config.yaml``; EFFNET_CACHE names the local
    folder for shards. Rank 0 writes the result and the last ``status.json``. An unexpected error keeps
    its traceback: it is a bug, and goes into the job's log.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger()  # from here on its messages are escaped
    warnings.filterwarnings("ignore", message=".*barrier.*device_id.*")  # torch's own, on gloo
    job_uri, progress, rank = sys.argv[1], None, os.environ.get("RANK", "0")
    preemption, startup = Preemption(), Startup()
    startup.done("imports")
    _raise_file_limit()
    try:
        _refuse_what_has_ended(job_uri)
        ranks = distributed.join()
        progress = Progress(job_uri) if ranks.is_first else None
        if progress is not None:
            progress.report(state="starting", restarts=distributed.restart_count())
        startup.done("joining")
        job = _job(job_uri)
        worker = _worker(job, job_uri, ranks, progress, preemption, startup)
        result = main(job, worker)
        if progress is not None:
            store.write_json(store.join(job_uri, result_name(job)), result)
            progress.finish(state="done", exit_code=0)
        worker.watchdog.close()
        distributed.leave()
        return 0
    except PreemptedError as error:
        preemption.saved()  # else torchrun's signal, when another rank ends first, may beat the status
        if progress is not None:
            progress.finish(state="preempted", error=str(error), exit_code=error.exit_code)
        sys.stderr.write(f"rank {rank}: {error}\n")
        return _gone(error.exit_code)
    except EffnetError as error:
        _failed(job_uri, progress, error)
        sys.stderr.write(f"rank {rank}: {type(error).__name__}: {error}\n")
        return _gone(error.exit_code)
    except Exception as error:  # noqa: BLE001 - a door: the supervisor must learn of every end
        if isinstance(error, RuntimeError) and distributed.is_peer_failure(error):
            time.sleep(CAUSE_S)
            _failed(job_uri, progress, LostError(f"another rank is gone: {first_line(error)}"))
            sys.stderr.write(f"rank {rank}: another rank is gone\n")
            return _gone(LostError.exit_code)
        _failed(job_uri, progress, JobError(f"{type(error).__name__}: {error}"))
        sys.stderr.write("".join(f"{escaped(line)}\n" for line in traceback.format_exc().splitlines()))
        return _gone(1)


def _worker(
    job: Job, job_uri: str, ranks: Ranks, progress: Progress | None, preemption: Preemption, startup: Startup
) -> Worker:
    def hung(error: EffnetError) -> None:
        _failed(job_uri, progress, error)

    watchdog = Watchdog(job_uri, ranks, job.runtime, preemption, hung)
    cache = Path(os.environ.get("EFFNET_CACHE", "runs/cache"))
    return Worker(job_uri, ranks, cache, progress, preemption, watchdog, Faults(job_uri, ranks.rank), startup)


def _gone(exit_code: int) -> int:
    """Ends without the interpreter's own clean-up, which may wait for peers that wait for us."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _raise_file_limit() -> None:
    """A rank keeps its shards open, and ImageNet has more of them than the usual soft limit of 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _refuse_what_has_ended(job_uri: str) -> None:
    """After every failure torchrun restarts; what is permanent, and what was asked to end, ends again at once."""
    if not distributed.restart_count():
        return
    for name in ("failure.json", "status.json"):
        uri = store.join(job_uri, name)
        if store.exists(uri):
            told = read_object(uri)
            kind = kind_of(told.get("exit_code", 1))
            if kind is PreemptedError or not issubclass(kind, JobError | TransientError):
                raise kind(told.get("error", f"as {uri} says"))


def _failed(job_uri: str, progress: Progress | None, error: EffnetError) -> None:
    """The first rank that fails in torchrun's latest attempt names the cause; rank 0 also ends the status."""
    told = {"error": str(error), "exit_code": error.exit_code}
    attempt = distributed.restart_count()
    failure = json.dumps({**told, "kind": type(error).__name__, "attempt": attempt}).encode()
    uri = store.join(job_uri, "failure.json")
    with suppress(EffnetError):  # where the store is what failed, the exit code and the log have to do
        if not store.write(uri, failure, if_absent=True) and _attempt(uri) < attempt:
            store.write(uri, failure)
        if progress is not None:
            progress.finish(state="failed", **told)


def _attempt(uri: str) -> int:
    """The attempt that a failure is of; -1 where that cannot be read, so that a new failure replaces it."""
    try:
        return int(read_object(uri, attempt=int)["attempt"])
    except DataError:
        return -1


def _job(job_uri: str) -> Job:
    try:
        return compose.from_yaml(Job, store.read(store.join(job_uri, "config.yaml")))
    except compose.OverrideError as error:
        raise ConfigError(f"{job_uri}/config.yaml: {error}") from error
