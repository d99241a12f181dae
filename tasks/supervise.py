"""Runs one torchrun job to its end: start or adopt it, watch its status object, feed MLflow and the display.

The trainer tells everything through two objects in its run folder (models/training/supervision/progress.py), so this
works the same on every engine, and a supervisor that dies loses nothing: the next one reads them again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGTERM
from typing import Any

from conf import compose, schema
from conf.text import logger, quoted
from infra import errors, store
from infra.launch import local
from infra.launch.command import RENDEZVOUS_TOKEN, job_environment, torchrun_argv
from infra.launch.guard import ALREADY_RUNNING
from infra.store.json_objects import NUMBER, check_object, read_lines, read_object
from models.results import result_name

log = logger()  # goes to Prefect's database too: a line an epoch
every_second = logger("effnet-progress")  # only for bars in a terminal
POLL_S = 0.2  # of the process
LOOK_S = 1.0  # at the status object; the trainer writes it about once a second
SAY_S = 30.0  # a line at least so often in a long epoch
SIGNALLED = 128  # a signal's number is added to it
SHOWN = dict.fromkeys(("epoch", "epochs", "step", "steps", "loss", "images_per_s", "eta_s"), NUMBER)  # of a status
FAULTS = (SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV)  # signals by which a program ends itself
FEED_S = 10.0  # MLflow gets new epochs at most so often: its server may share the trainer's cores
interrupted: dict[str, bool] = {}  # jobs that ended with this command, and whether they saved their state


@dataclass(frozen=True)
class JobRun:
    """A job, where its run folder is, and what it is called on the display."""

    job: schema.Job
    key: str  # name and digest of what is asked; also the last part of job_uri
    job_uri: str
    label: str


async def run_job(run: JobRun, config: schema.Config, mlflow_run: str) -> dict[str, Any]:
    """Runs a job unless its result is there already; returns it with the job's minutes.

    Raises:
        TransientError, DataError, DivergedError, ArtifactError, ConfigError: as the trainer ended.
        JobError: the job died in another way; the message ends with the worker's last lines.
    """
    done = await asyncio.to_thread(finished, run)
    if done is None:
        began = time.monotonic()
        asked = compose.to_yaml(run.job).encode()
        await asyncio.to_thread(store.write, store.join(run.job_uri, "config.yaml"), asked)
        spec = await asyncio.to_thread(_spec, run, config)
        await _until_done(run, spec, config.launch, mlflow_run)
        uri = result_uri(run)
        found = await asyncio.to_thread(read_object, uri)
        done = {**found, "minutes": (time.monotonic() - began) / 60}
        await asyncio.to_thread(store.write_json, uri, done)
    if mlflow_run:
        await asyncio.to_thread(_feed_mlflow, run.job_uri, mlflow_run)
    return done


def finished(run: JobRun) -> dict[str, Any] | None:
    """The result of a job that was done before, as far as it is asked to go, else None."""
    uri = result_uri(run)
    if not store.exists(uri):
        return None
    return {"minutes": 0.0, **read_object(uri)}


def result_uri(run: JobRun) -> str:
    """Where the job leaves what it came to."""
    return store.join(run.job_uri, result_name(run.job))


def _spec(run: JobRun, config: schema.Config) -> local.JobSpec:
    run_dir = Path(config.run_dir).resolve()
    module = {"train": "models.train", "evaluate": "models.evaluate"}[run.job.kind]
    environment = job_environment(config.launch, os.cpu_count() or 1, str(run_dir / "cache"))
    if config.launch.nnodes > 1:
        environment[RENDEZVOUS_TOKEN] = _rendezvous_token(run.job_uri)
    argv = torchrun_argv(config.launch, module, run.job_uri, sys.executable)
    return local.JobSpec(run.key, argv, environment, run_dir / "jobs" / run.key)


def _rendezvous_token(job_uri: str) -> str:
    """A random word that the machines of one job share, and nobody who cannot read its run folder guesses."""
    uri = store.join(job_uri, "rendezvous")
    store.write(uri, secrets.token_hex(16).encode(), if_absent=True)
    return store.read(uri).decode()


async def _until_done(run: JobRun, spec: local.JobSpec, launch: schema.Launch, mlflow_run: str) -> None:
    """Starts the job again after a preemption or a loss, as long as it makes progress between them.

    Neither is the task's failure, so neither uses up one of its retries. Without progress it is given up after
    ``launch.relaunches`` more starts; a preemption after a step was saved never counts.

    Raises:
        JobError, PreemptedError, HungError: it ended so time and again without progress.
        EffnetError: what else ``_supervise`` raises.
    """
    idle, reached = 0, -1
    while True:
        try:
            return await _supervise(run, spec, launch, mlflow_run)
        except (errors.PreemptedError, errors.LostError, errors.HungError) as error:
            step = await asyncio.to_thread(_saved_step, run.job_uri)
            moved, preempted = step > reached, isinstance(error, errors.PreemptedError)
            idle = idle + 1 if not moved else 0 if preempted else 1
            reached = max(step, reached)
            if idle > launch.relaunches:
                message = f"{error}; that was start {idle} without a step saved after {max(step, 0)}"
                if preempted:
                    raise errors.PreemptedError(message) from error
                if isinstance(error, errors.HungError):
                    raise
                raise errors.JobError(message) from error  # as memory that never suffices: no retry helps
            log.log(
                logging.INFO if preempted else logging.WARNING,
                "%s; starting it again from step %d",
                error,
                max(step, 0),
            )


def _saved_step(job_uri: str) -> int:
    """Of the newest checkpoint, -1 without one."""
    names = [uri.rpartition("/")[2] for uri in store.list_uris(store.join(job_uri, "checkpoints/"))]
    return max((int(n.split("-")[1]) for n in names if n.startswith("step-") and n.endswith(".json")), default=-1)


async def _supervise(run: JobRun, spec: local.JobSpec, launch: schema.Launch, mlflow_run: str) -> None:
    """Waits for the job's end; cancelled or failing here, it takes the job with it."""
    job = local.find(spec)
    if job is None:
        for name in ("status.json", "failure.json"):  # of an attempt before this one
            await asyncio.to_thread(store.delete, store.join(run.job_uri, name))
        job = local.submit(spec)
    watch, looked_at = _Watch(run, launch, mlflow_run), time.monotonic()
    try:
        while (code := local.poll(job)) is None:
            await asyncio.sleep(POLL_S)
            if time.monotonic() - looked_at >= LOOK_S:
                looked_at = time.monotonic()
                await asyncio.to_thread(watch.look)
        if code == ALREADY_RUNNING:
            raise errors.TransientError(f"{run.label}: another supervisor has just started this job")
        objects = (watch.status_uri, store.join(run.job_uri, "failure.json"))
        status, failure = [await asyncio.to_thread(_object, uri) for uri in objects]
        if await asyncio.to_thread(finished, run) is None:
            _judge(run, status, failure, code, job)
    except asyncio.CancelledError:
        await asyncio.to_thread(local.cancel, job)
        if job.process is not None:  # an adopted job runs on
            with suppress(errors.EffnetError):
                state = (await asyncio.to_thread(_object, watch.status_uri)).get("state")
                interrupted[run.label] = state in ("preempted", "done")
        raise
    finally:
        await asyncio.to_thread(local.cancel, job)


def _object(uri: str) -> dict[str, Any]:
    try:
        return read_object(uri)
    except errors.NotFoundError:
        return {}
    except errors.DataError as error:  # the result and the exit code have to do
        log.warning("%s", error)
        return {}


class _Watch:
    """Reads the status object, says what is new, and notices when there is nothing new for too long."""

    def __init__(self, run: JobRun, launch: schema.Launch, mlflow_run: str) -> None:
        self.run, self.launch, self.mlflow_run = run, launch, mlflow_run
        self.status_uri = store.join(run.job_uri, "status.json")
        self.last: dict[str, Any] = {}
        self.seen_at = self.fed_at = self.said_at = time.monotonic()

    def look(self) -> None:
        try:
            status = _checked_status(self.status_uri)
        except errors.EffnetError:  # not there yet, or not to be had now: the limits below decide
            status = self.last
        if status != self.last:
            self._tell(status)
            self.last, self.seen_at = status, time.monotonic()
        limit_s = self.launch.stall_timeout_s if self.last else self.launch.start_timeout_s
        if time.monotonic() - self.seen_at > limit_s:
            key = "stall_timeout_s" if self.last else "start_timeout_s"
            raise errors.TransientError(f"{self.run.label}: no sign of life for {limit_s:.0f} s (launch.{key})")

    def _tell(self, status: dict[str, Any]) -> None:
        if "resumed_at" in status and "resumed_at" not in self.last:
            log.info("%s: resumed at step %d, no sample lost", self.run.label, status["resumed_at"])
        if "step" in status:
            new_epoch = status["epoch"] != self.last.get("epoch")
            due = new_epoch or time.monotonic() - self.said_at > SAY_S
            self.said_at = time.monotonic() if due else self.said_at
            extra = {"progress": {"job": self.run.label, **status}}
            (log if due else every_second).info(progress_line(self.run.label, status), extra=extra)
        if self.mlflow_run and "minival_top1" in status and time.monotonic() - self.fed_at > FEED_S:
            self.fed_at = time.monotonic()
            try:
                _feed_mlflow(self.run.job_uri, self.mlflow_run)
            except errors.EffnetError as error:  # tracking never stops a training; the end replays it
                log.warning("%s: %s; metrics follow later", self.run.label, error)


def _checked_status(uri: str) -> dict[str, Any]:
    """The status object, with all that is shown of it where there is a step."""
    status = read_object(uri)
    for key in ("minival_top1", "data_wait", "resumed_at"):
        if key in status:
            check_object(uri, status, **{key: NUMBER})
    return check_object(uri, status, **SHOWN) if "step" in status else status


def progress_line(label: str, status: dict[str, Any]) -> str:
    """One plain line of progress."""
    minival = f", minival {status['minival_top1']:.1f} %" if "minival_top1" in status else ""
    minutes, seconds = divmod(round(status["eta_s"]) if math.isfinite(status["eta_s"]) else 0, 60)
    hours, minutes = divmod(minutes, 60)
    eta = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
    wait = f" (waits {100 * status['data_wait']:.0f} % for data)" if "data_wait" in status else ""
    return (
        f"{label}: epoch {status['epoch']}/{status['epochs']}, step {status['step']}/{status['steps']}, "
        f"loss {status['loss']:.3f}{minival}, {status['images_per_s']:.0f} images/s{wait}, {eta} left"
    )


def _feed_mlflow(job_uri: str, mlflow_run: str) -> None:
    from infra.tracking import runs

    uri = store.join(job_uri, "metrics.jsonl")
    if store.exists(uri):
        runs.log_epochs(mlflow_run, read_lines(uri, step=NUMBER, time=NUMBER))


def _judge(run: JobRun, status: dict[str, Any], failure: dict[str, Any], code: int, job: local.LocalJob) -> None:
    """Believes the job's own objects first, then the exit code, which not every engine passes on.

    ``failure`` was written by the first rank that failed, so it is the cause; the others fail of its absence.
    """
    if status.get("state") == "done":
        return
    if status.get("state") == "preempted":
        raise errors.PreemptedError(f"{run.label}: {status.get('error', 'asked to end')}")
    if job.process is None and not failure:
        raise errors.TransientError(f"{run.label}: the supervisor that had started this job ended it")
    kind = errors.kind_of(failure.get("exit_code", 1), failure.get("kind", ""))
    if kind is not errors.JobError:
        raise kind(f"{run.label}: {failure.get('error', 'it left no message')}")
    if not failure:
        _judge_by_code(run, code, job)
    where = f"exit code {code}, log in {job.spec.log_path}"
    raise errors.JobError(f"{run.label} failed ({where}):{quoted(local.logs(job))}")


def _judge_by_code(run: JobRun, code: int, job: local.LocalJob) -> None:
    """The end of a job that left no word, which ``models/training/agent.py`` tells by its exit code.

    Raises:
        PreemptedError: asked to end before a rank could take note; nothing was there to be saved.
        LostError: killed, or its machines did not meet.
    """
    if code in (errors.PreemptedError.exit_code, SIGNALLED + SIGTERM):
        raise errors.PreemptedError(f"{run.label}: asked to end while it started")
    if code == errors.LostError.exit_code:
        raise errors.LostError(f"{run.label}: {local.logs(job).rpartition(chr(10))[2]}")
    if code > SIGNALLED and code - SIGNALLED not in FAULTS:
        hint = ": by a user, or by the system for want of memory" if code == SIGNALLED + SIGKILL else ""
        raise errors.LostError(f"{run.label}: torchrun or a rank was killed by signal {code - SIGNALLED}{hint}")
