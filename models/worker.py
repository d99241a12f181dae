"""What both torchrun doors share: one argument in, the group joined, errors told once, status written."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from conf import compose
from conf.schema import Job
from infra import store
from infra.errors import ConfigError, EffnetError, JobError, TransientError, kind_of
from models.training import distributed
from models.training.distributed import Ranks
from models.training.progress import Progress

JobMain = Callable[[Job, str, Ranks, Path, Progress | None], dict[str, Any]]


def run(main: JobMain) -> int:
    """Runs a job's main function on this rank; the exit code is in ``infra/errors.py``.

    The one argument is the uri of the run folder, which holds ``config.yaml``; EFFNET_CACHE names the local
    folder for shards. Rank 0 writes ``result.json`` and the last ``status.json``. An unexpected error keeps
    its traceback: it is a bug, and goes into the job's log.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    warnings.filterwarnings("ignore", message=".*barrier.*device_id.*")  # torch's own, on gloo
    job_uri, progress, rank = sys.argv[1], None, os.environ.get("RANK", "0")
    _raise_file_limit()
    try:
        _refuse_after_permanent_failure(job_uri)
        ranks = distributed.join()
        progress = Progress(job_uri) if ranks.is_first else None
        result = main(_job(job_uri), job_uri, ranks, Path(os.environ.get("EFFNET_CACHE", "runs/cache")), progress)
        if progress is not None:
            store.write_json(store.join(job_uri, "result.json"), result)
            progress.finish(state="done", exit_code=0)
        distributed.leave()
        return 0
    except EffnetError as error:
        _failed(job_uri, progress, str(error), error.exit_code)
        sys.stderr.write(f"rank {rank}: {type(error).__name__}: {error}\n")
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a door: the supervisor must learn of every end
        _failed(job_uri, progress, f"{type(error).__name__}: {error}", 1)
        traceback.print_exc()
        return 1


def _raise_file_limit() -> None:
    """A rank keeps its shards open, and ImageNet has more of them than the usual soft limit of 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _refuse_after_permanent_failure(job_uri: str) -> None:
    """After every failure torchrun restarts; what is permanent fails again at once and under its own name."""
    uri = store.join(job_uri, "failure.json")
    if distributed.restart_count() and store.exists(uri):
        failure = store.read_json(uri)
        kind = kind_of(failure["exit_code"])
        if kind not in (JobError, TransientError):
            raise kind(failure["error"])


def _failed(job_uri: str, progress: Progress | None, error: str, exit_code: int) -> None:
    """The first rank that fails names the cause; rank 0 also ends the status."""
    with suppress(EffnetError):  # where the store is what failed, the exit code and the log have to do
        failure = json.dumps({"error": error, "exit_code": exit_code}).encode()
        store.write(store.join(job_uri, "failure.json"), failure, if_absent=True)
        if progress is not None:
            progress.finish(state="failed", error=error, exit_code=exit_code)


def _job(job_uri: str) -> Job:
    try:
        return compose.from_yaml(Job, store.read(store.join(job_uri, "config.yaml")).decode())
    except compose.OverrideError as error:
        raise ConfigError(f"{job_uri}/config.yaml: {error}") from error
