"""Whether a registered version can be used elsewhere: tried before it may become champion, in a process of its own.

The files are those of the registry, verified by their digests; ``models/networks/trial.py`` loads and exports them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prefect import task

from conf import schema
from infra.errors import ArtifactError, HungError, TransientError, kind_of
from models.results import Registered
from tasks import policy
from tasks.registry.promote import is_pending

TIMEOUT_S = 900.0


@task(task_run_name="try {registered.name}/{registered.version}", **policy.BOOKKEEPING)
async def find_package_fault(registered: Registered, limits: schema.Nightly) -> str | None:
    """Returns what is wrong with the files of a version; None if nothing is, or if it has been judged already.

    Raises:
        TransientError: MLflow does not respond; the same call resumes later.
        HungError: The trial did not end within 15 minutes.
    """
    return await asyncio.to_thread(_find_fault, f"{registered.name}/{registered.version}", limits)


def _find_fault(ref: str, limits: schema.Nightly) -> str | None:
    from infra.tracking import registry

    if not is_pending(ref):
        return None
    with tempfile.TemporaryDirectory(prefix="effnet-try-") as scratch:
        try:
            registry.fetch_weights(ref, Path(scratch))
        except ArtifactError as error:
            return str(error)
        return judge_trial(run_trial(Path(scratch)), limits)


def run_trial(folder: Path) -> dict[str, Any]:
    """Tries the files in a folder in a new process; returns what it prints.

    Raises:
        HungError: It did not end within 15 minutes.
    """
    command = [sys.executable, "-m", "models.networks.trial", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise HungError(f"the trial of a registered network did not end within {TIMEOUT_S:g} s") from error
    try:
        trial: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        if done.returncode in (-signal.SIGKILL, -signal.SIGTERM):
            raise TransientError(
                f"the trial of a registered network was killed by signal {-done.returncode}, as for lack of memory"
            ) from None
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"the process that loads it ended with {done.returncode}: {last}", "code": 5}
    return trial


def judge_trial(trial: dict[str, Any], limits: schema.Nightly) -> str | None:
    """Returns what is wrong with a version according to its trial; None if nothing is.

    Raises:
        TransientError: The trial failed for a reason that may pass.
    """
    if "error" in trial:
        kind = kind_of(trial["code"])
        if issubclass(kind, TransientError):
            raise kind(trial["error"])
        return str(trial["error"])
    latency = float(trial["latency_ms"])
    if limits.max_latency_ms is not None and latency > limits.max_latency_ms:
        return f"one image takes {latency:.1f} ms, {limits.max_latency_ms:g} are allowed (nightly.max_latency_ms)"
    return None
