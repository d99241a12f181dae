"""Shared entry point of torchrun workers: joins the process group, reports errors once, writes the status object."""

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
from typing import Any, NoReturn

from conf.schema import Job
from conf.text import escaped, first_line, logger
from infra import machine, store
from infra.environment import cache_folder
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
from infra.launch.command import TRAINING_CODE
from infra.launch.job import read_request
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
    """The context that a job's main function receives besides the job."""

    job_uri: str
    ranks: Ranks
    cache: Path
    progress: Progress | None  # rank 0 only
    preemption: Preemption
    watchdog: Watchdog
    faults: Faults
    startup: Startup


CAUSE_S = 2.0  # a rank that only lost its peers lets them report the cause first
JobMain = Callable[[Job, Worker], dict[str, Any]]


def run(main: JobMain) -> int:
    """Runs a job's main function on this rank; returns an exit code of ``infra/errors.py``.

    The only command-line argument is the URI of the run folder, which holds ``config.yaml``; EFFNET_CACHE names the
    local folder for shards. Rank 0 writes the result and the final ``status.json``. An unexpected error is a bug, so
    its traceback is written to the job's log.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger().setLevel(logging.INFO)  # and of libraries warnings: boto3 has a line for every endpoint
    warnings.filterwarnings("ignore", message=".*barrier.*device_id.*")  # raised by torch itself on gloo
    job_uri, progress, rank = sys.argv[1], None, os.environ.get("RANK", "0")
    preemption, startup = Preemption(), Startup()
    startup.done("imports")
    _raise_file_limit()
    try:
        _refuse_ended_job(job_uri)
        _refuse_other_code()
        _forget_failure(job_uri, rank)
        ranks = distributed.join()
        progress = Progress(job_uri) if ranks.is_first else None
        if progress is not None:
            progress.report(state="starting", restarts=distributed.restart_count())
        startup.done("joining")
        job = read_request(job_uri)
        worker = _build_worker(job, job_uri, ranks, progress, preemption, startup)
        result = main(job, worker)
        if progress is not None:
            store.write_json(store.join(job_uri, result_name(job)), result)
            progress.finish(state="done", exit_code=0)
        worker.watchdog.close()
        distributed.leave()
        return 0
    except PreemptedError as error:
        preemption.saved()  # or the signal torchrun sends once another rank ends may interrupt writing the status
        if progress is not None:
            with suppress(EffnetError):  # the exit code says it too, if the store is away
                progress.finish(state="preempted", error=str(error), exit_code=error.exit_code)
        sys.stderr.write(f"rank {rank}: {error}\n")
        _exit(error.exit_code)
    except EffnetError as error:
        _record_failure(job_uri, progress, error)
        sys.stderr.write(f"rank {rank}: {type(error).__name__}: {error}\n")
        _exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - entry point: the supervisor must see every failure
        if isinstance(error, RuntimeError) and distributed.is_peer_failure(error):
            time.sleep(CAUSE_S)
            _record_failure(job_uri, progress, LostError(f"another rank is gone: {first_line(error)}"))
            sys.stderr.write(f"rank {rank}: another rank is gone\n")
            _exit(LostError.exit_code)
        _record_failure(job_uri, progress, JobError(f"{type(error).__name__}: {error}"))
        sys.stderr.write("".join(f"{escaped(line)}\n" for line in traceback.format_exc().splitlines()))
        _exit(1)


def _build_worker(
    job: Job, job_uri: str, ranks: Ranks, progress: Progress | None, preemption: Preemption, startup: Startup
) -> Worker:
    def report_hang(error: EffnetError) -> None:
        _record_failure(job_uri, progress, error)

    watchdog = Watchdog(job_uri, ranks, job.runtime, preemption, report_hang)
    cache = cache_folder()
    return Worker(job_uri, ranks, cache, progress, preemption, watchdog, Faults(job_uri, ranks.rank), startup)


def _exit(exit_code: int) -> NoReturn:
    """Exits without interpreter cleanup, which may deadlock with peers that wait for this rank."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _raise_file_limit() -> None:
    """Raises the soft limit on open files: a rank keeps its shards open, and ImageNet has more than the usual 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _refuse_other_code() -> None:
    """Raises if this image has other training code than the flow that submitted the job: it may come to other bits."""
    expected = os.environ.get(TRAINING_CODE)
    if expected is not None and expected != machine.training_code():
        raise ConfigError(
            f"the image has another version of effnet (training code {machine.training_code()}) than the flow "
            f"({expected}): set launch.kubernetes.image to one of the flow's version"
        )


def _refuse_ended_job(job_uri: str) -> None:
    """Raises the recorded error again if a restarted job failed permanently or was preempted.

    torchrun restarts the ranks after every failure.
    """
    if not distributed.restart_count():
        return
    for name in ("failure.json", "status.json"):
        uri = store.join(job_uri, name)
        if store.exists(uri):
            status = read_object(uri)
            kind = kind_of(status.get("exit_code", 1))
            if kind is PreemptedError or not issubclass(kind, JobError | TransientError):
                raise kind(status.get("error", f"recorded in {uri}"))


def _forget_failure(job_uri: str, rank: str) -> None:
    """Deletes the cause of an earlier start: a scheduler that requeues a job starts it without a supervisor."""
    if rank == "0" and not distributed.restart_count():
        store.delete(store.join(job_uri, "failure.json"))


def _record_failure(job_uri: str, progress: Progress | None, error: EffnetError) -> None:
    """Records the cause: the first rank to fail in an attempt writes it; rank 0 also writes the final status."""
    cause = {"error": str(error), "exit_code": error.exit_code}
    attempt = distributed.restart_count()
    failure = json.dumps({**cause, "kind": type(error).__name__, "attempt": attempt}).encode()
    uri = store.join(job_uri, "failure.json")
    with suppress(EffnetError):  # if the store itself failed, only the exit code and the log remain
        if not store.write(uri, failure, if_absent=True) and _read_attempt(uri) < attempt:
            store.write(uri, failure)
        if progress is not None:
            progress.finish(state="failed", **cause)


def _read_attempt(uri: str) -> int:
    """Returns the attempt in which a failure occurred; -1 if unreadable, so that a new failure replaces it."""
    try:
        return int(read_object(uri, attempt=int)["attempt"])
    except DataError:
        return -1
