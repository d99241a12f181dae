"""Whether a registered version can be used elsewhere: tried before it may become champion, in a process of its own.

The files are those of the registry, verified by their digests; ``models/networks/trial.py`` loads and exports them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from conf import schema
from conf.text import logger
from infra import machine
from infra.errors import ArtifactError, HungError, TransientError, kind_of
from models.results import Registered
from tasks import policy
from tasks.registry.promote import is_pending

log = logger()
TIMEOUT_S = 900.0
MAX_WAITED = 0.05  # share of a measurement in which other work had the cores, above which it refuses nothing
NOT_COMPARED = "the latency is not compared with the champion's: %s"
NO_ONNX = "not tried as ONNX, since effnet[export] is not installed"


@dataclass(frozen=True)
class PackageTrial:
    """Result of trying the files of a version.

    Attributes:
        fault: What is wrong with them; None if nothing is, or if the version has been judged already.
        note: What could not be tried; empty if everything was.
    """

    fault: str | None = None
    note: str = ""


@task(task_run_name="try {registered.name}/{registered.version}", **policy.BOOKKEEPING)
async def try_package(registered: Registered, limits: schema.Nightly) -> PackageTrial:
    """Tries the files of a version, beside those of the champion of its name.

    Raises:
        TransientError: MLflow does not respond, or the trial ended without a result; the same call resumes later.
        HungError: The trial did not end within 15 minutes.
    """
    return await asyncio.to_thread(_try_package, registered.name, registered.version, limits)


def _try_package(name: str, version: int, limits: schema.Nightly) -> PackageTrial:
    from infra.tracking import registry

    ref = f"{name}/{version}"
    if not is_pending(ref):
        return PackageTrial()
    with tempfile.TemporaryDirectory(prefix="effnet-try-") as scratch:
        folder = Path(scratch) / "new"
        try:
            registry.fetch_weights(ref, folder)
        except ArtifactError as error:
            return PackageTrial(str(error))
        trial = run_trial(folder, _fetch_champion(name, version, Path(scratch) / "champion"))
    if "other_error" in trial:
        log.warning(NOT_COMPARED, trial["other_error"])
    fault = judge_trial(trial, limits)
    return PackageTrial(fault, "" if fault or trial.get("onnx") else NO_ONNX)


def _fetch_champion(name: str, version: int, folder: Path) -> Path | None:
    """Downloads the files of the champion that the version would replace; None if there is none, or it is damaged."""
    from infra.tracking import registry

    champion = registry.champion(name)
    if champion is None or champion.version == version:
        return None
    try:
        registry.fetch_weights(f"{name}/{champion.version}", folder)
    except ArtifactError as error:
        log.warning(NOT_COMPARED, error)
        return None
    return folder


def run_trial(folder: Path, champion: Path | None = None) -> dict[str, Any]:
    """Tries the files in a folder in a new process; returns what it prints.

    Args:
        folder: Files of the version.
        champion: Folder with the files of the champion, whose latency is measured in turns with the version's.

    Raises:
        HungError: It did not end within 15 minutes.
        TransientError: It ended without a result, as for lack of memory or disk: that is no verdict on the version.
    """
    folders = [str(folder), *([] if champion is None else [str(champion)])]
    command = [sys.executable, "-m", "models.networks.trial", *folders]
    environment = os.environ | machine.import_path()  # the user's folder may hold a `models.py`
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise HungError(f"the trial of a registered network did not end within {TIMEOUT_S:g} s") from error
    try:
        trial: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        end = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        raise TransientError(
            f"the process that tries a registered network {end} and has no result: {last}; the version is not judged, "
            "the same command tries it again"
        ) from None
    return trial


def judge_trial(trial: dict[str, Any], limits: schema.Nightly) -> str | None:
    """Returns what is wrong with a version according to its trial; None if nothing is.

    Raises:
        TransientError: The trial failed for a reason that may pass, or was slow on a machine that does other work too.
    """
    if "error" in trial:
        kind = kind_of(trial["code"])
        if issubclass(kind, TransientError):
            raise kind(trial["error"])
        return str(trial["error"])
    latency = float(trial["latency_ms"])
    if limits.max_latency_ms is not None and latency > limits.max_latency_ms:
        fault = f"one image takes {latency:.1f} ms, {limits.max_latency_ms:g} are allowed (nightly.max_latency_ms)"
        waited = float(trial.get("waited", 0))
        if waited > MAX_WAITED:
            raise TransientError(
                f"{fault}, but other work had the cores for {100 * waited:.0f} % of the time: it is not judged, the "
                "same command measures it again"
            )
        return fault
    ratio = float(trial.get("latency_ratio", 0))
    if limits.max_latency_ratio is not None and ratio > limits.max_latency_ratio:
        return (
            f"one image takes {ratio:.2f} times as long as with the champion, measured in turns; "
            f"{limits.max_latency_ratio:g} are allowed (nightly.max_latency_ratio)"
        )
    size = float(trial.get("size_mb", 0))
    if limits.max_size_mb is not None and size > limits.max_size_mb:
        return f"its weights have {size:.1f} MB, {limits.max_size_mb:g} are allowed (nightly.max_size_mb)"
    return None
