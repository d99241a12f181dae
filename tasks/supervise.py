"""Runs one torchrun job to its end: starts or adopts it, polls its status object, and updates MLflow and the display.

The trainer reports only through two objects in its run folder (models/training/supervision/progress.py), so this works
the same on every engine, and a supervisor that dies loses nothing: the next one reads the objects again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from signal import SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGTERM
from typing import Any

from conf import compose, schema
from conf.text import logger, quoted
from infra import errors, store
from infra.launch.engine import ENGINES, Engine
from infra.launch.guard import ALREADY_RUNNING
from infra.launch.job import Handle, JobSpec, write_request
from infra.store.json_objects import NUMBER, check_object, read_lines, read_object
from tasks.jobs import LAUNCH_FILE, MODULES, JobRun, list_other_worlds, result_uri, stored_result
from tasks.metrics import EPOCH_METRICS

log = logger()  # also stored in Prefect's database: one line per epoch
progress_log = logger("effnet-progress")  # every status update; only for progress bars in a terminal
STATUS_POLL_S = 1.0  # polling interval of the status object, which the trainer writes about once a second
LOG_S = 30.0  # longest time between two log lines in a long epoch
QUEUED = "queued"  # state of a job that waits for a slot on the machine of its worker
SIGNALLED = 128  # exit code of a process ended by signal n is SIGNALLED + n
STATUS_KEYS = dict.fromkeys(("epoch", "epochs", "step", "steps", "loss", "images_per_s", "eta_s"), NUMBER)
FAULTS = (SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV)  # signals caused by the program itself
FIRST_LOG_S = 10.0  # a job that waits longer says why
QUEUE_FULL_S = 30.0  # between two attempts to submit a job to a scheduler that accepts no more
REFRESH_S = 3600.0  # `effnet prune` deletes the run folders that nothing has written for days
MLFLOW_S = 10.0  # shortest time between two updates of MLflow, whose server may share the trainer's cores
interrupted: dict[str, bool] = {}  # label of each job ended with this command -> whether it saved its state


async def run_job(run: JobRun, config: schema.Config, mlflow_run: str) -> dict[str, Any]:
    """Runs a job unless its result exists already; returns the result.

    Raises:
        TransientError, DataError, DivergedError, ArtifactError, ConfigError: The error that the trainer reported.
        JobError: The job died in another way; the message ends with the last lines of the worker's log.
    """
    done = await asyncio.to_thread(stored_result, run)
    if done is None:
        from tasks.artifacts import show_progress  # imports Prefect, which `effnet status` does not need

        await asyncio.to_thread(write_request, run.job_uri, run.job)
        await asyncio.to_thread(report_other_worlds, run, config)
        read_status = partial(_checked_status, store.join(run.job_uri, "status.json"))
        async with show_progress(run.key, read_status, partial(describe_progress, run.label), mlflow_run):
            await _until_done(run, build_spec(run, config), mlflow_run)
        done = await asyncio.to_thread(read_object, result_uri(run))
    if mlflow_run:
        await asyncio.to_thread(_feed_mlflow, run.job_uri, mlflow_run)
    return done


def build_spec(run: JobRun, config: schema.Config) -> JobSpec:
    """Describes a job for its engine."""
    module = MODULES[run.job.kind]
    return JobSpec(run.key, run.label, module, run.job_uri, config.launch, Path(config.run_dir).resolve())


def report_other_worlds(run: JobRun, config: schema.Config) -> None:
    """Warns if a training starts at step 0 that another number of processes would resume."""
    if _saved_step(run.job_uri) >= 0:
        return
    for processes, key in list_other_worlds(config, run).items():
        step = _saved_step(store.join(config.storage, "jobs", key))
        if step >= 0:
            log.warning(
                "%s starts at step 0: with recipe.bn_groups=%s its result depends on the number of processes, so that "
                "on %d it is another job, %s, which has saved step %d",
                *(run.label, run.job.recipe.bn_groups, processes, key, step),
            )


async def _until_done(run: JobRun, spec: JobSpec, mlflow_run: str) -> None:
    """Restarts the job after a preemption, a loss or a hang, as long as it makes progress in between.

    None of these is a failure of the task, so none uses up one of its retries. Without progress the job is abandoned
    after ``launch.relaunches`` more starts; a preemption after a saved step never counts.

    Raises:
        JobError, PreemptedError, HungError: It ended this way repeatedly without progress.
        EffnetError: Any other error of ``_supervise``.
    """
    idle, reached = 0, -1
    while True:
        try:
            return await _supervise(run, spec, mlflow_run)
        except (errors.PreemptedError, errors.LostError, errors.HungError) as error:
            step = await asyncio.to_thread(_saved_step, run.job_uri)
            progressed, preempted = step > reached, isinstance(error, errors.PreemptedError)
            idle = idle + 1 if not progressed else 0 if preempted else 1
            reached = max(step, reached)
            if idle > spec.launch.relaunches:
                message = f"{error}; start {idle} without a step saved after step {max(step, 0)}"
                if preempted:
                    raise errors.PreemptedError(message) from error
                if isinstance(error, errors.HungError):
                    raise
                raise errors.JobError(message) from error  # e.g. too little memory: no retry helps
            log.log(logging.INFO if preempted else logging.WARNING, "%s; restarting from step %d", error, max(step, 0))


def _saved_step(job_uri: str) -> int:
    """Step of the newest checkpoint, -1 without one."""
    names = [uri.rpartition("/")[2] for uri in store.list_uris(store.join(job_uri, "checkpoints/"))]
    return max((int(n.split("-")[1]) for n in names if n.startswith("step-") and n.endswith(".json")), default=-1)


async def _supervise(run: JobRun, spec: JobSpec, mlflow_run: str) -> None:
    """Waits for the job's end; ends the job if this call is cancelled or fails."""
    engine = ENGINES[spec.launch.engine]
    job = await asyncio.to_thread(engine.find, spec) or await _submit(engine, run, spec)
    watch, polled_at = _Watch(run, spec.launch, mlflow_run), time.monotonic()
    try:
        while (code := await asyncio.to_thread(engine.poll, job)) is None:
            await asyncio.sleep(engine.POLL_S)
            if job.queued:
                await asyncio.to_thread(watch.wait_longer, job.reason)
            elif time.monotonic() - polled_at >= STATUS_POLL_S:
                polled_at = time.monotonic()
                await asyncio.to_thread(watch.poll_status)
        if code == ALREADY_RUNNING:
            raise errors.TransientError(f"{run.label}: another supervisor has just started this job")
        with suppress(errors.TransientError):  # how it ended counts, not how long it was silent
            await asyncio.to_thread(watch.poll_status)  # a short job ends between two polls
        await asyncio.to_thread(_check_end, run, code, engine, job)
    except asyncio.CancelledError:
        await asyncio.to_thread(engine.cancel, job)
        if not job.adopted:  # an adopted job continues
            with suppress(errors.EffnetError):
                state = (await asyncio.to_thread(_read_object_or_empty, watch.status_uri)).get("state")
                interrupted[run.label] = state in ("preempted", "done")
        raise
    finally:
        await asyncio.to_thread(engine.cancel, job)


async def _submit(engine: Engine[Any], run: JobRun, spec: JobSpec) -> Any:
    for name in ("status.json", "failure.json"):  # of an earlier attempt
        await asyncio.to_thread(store.delete, store.join(run.job_uri, name))
    how = compose.to_yaml(spec.launch).encode()
    await asyncio.to_thread(store.write, store.join(run.job_uri, LAUNCH_FILE), how)
    try:
        return await _submit_once(engine, spec)
    except errors.QueueFullError as error:  # no failure: jobs of this flow may be those that fill the queue
        refusal = error
    async with _turn(asyncio.get_running_loop()):
        log.info("%s: %s; submitted as soon as there is room", run.label, refusal)
        while True:
            with suppress(errors.QueueFullError):
                return await _submit_once(engine, spec)
            await asyncio.sleep(QUEUE_FULL_S)


@cache
def _turn(loop: asyncio.AbstractEventLoop) -> asyncio.Lock:  # noqa: ARG001 - the cache key
    """Held by the one job that tries again: the attempts of all would burden a full scheduler."""
    return asyncio.Lock()


async def _submit_once(engine: Engine[Any], spec: JobSpec) -> Any:
    submission = asyncio.ensure_future(asyncio.to_thread(engine.submit, spec))
    try:
        return await asyncio.shield(submission)
    except asyncio.CancelledError:  # the thread submits it nevertheless
        with suppress(errors.EffnetError):  # then there is nothing to cancel, or nothing that could
            await asyncio.to_thread(engine.cancel, await submission)
        raise


def _read_object_or_empty(uri: str) -> dict[str, Any]:
    try:
        return read_object(uri)
    except errors.NotFoundError:
        return {}
    except errors.DataError as error:  # decide by the result and the exit code
        log.warning("%s", error)
        return {}


class _Watch:
    """Polls the status object, reports changes, and raises if nothing changes for too long."""

    def __init__(self, run: JobRun, launch: schema.Launch, mlflow_run: str) -> None:
        self.run, self.launch, self.mlflow_run = run, launch, mlflow_run
        self.status_uri = store.join(run.job_uri, "status.json")
        self.last: dict[str, Any] = {}
        self.reason = ""
        self.changed_at = self.sent_at = self.logged_at = self.written_at = self.began = time.monotonic()

    def wait_longer(self, reason: str = "") -> None:
        """Postpones the timeout of a job that waits for a machine, and keeps its run folder from being pruned.

        Args:
            reason: Why it waits. Logged when it changes, but not in the first seconds, when it is about to start.
        """
        self.changed_at = time.monotonic()
        if reason not in ("", self.reason) and self.changed_at - self.began > FIRST_LOG_S:
            self.reason = reason
            log.info("%s: waits in the queue of launch.engine=%s: %s", self.run.label, self.launch.engine, reason)
        if self.changed_at - self.written_at > REFRESH_S:
            with suppress(errors.EffnetError):  # once more at the next poll
                write_request(self.run.job_uri, self.run.job)
                self.written_at = self.changed_at

    def poll_status(self) -> None:
        try:
            status = _checked_status(self.status_uri)
        except errors.EffnetError:  # not written yet or unreachable: the timeouts below decide
            status = self.last
        if status.get("state") == QUEUED:
            self.wait_longer()
        elif status != self.last:
            self._report(status)
            self.last, self.changed_at = status, time.monotonic()
        limit_s = self.launch.stall_timeout_s if self.last else self.launch.start_timeout_s
        if time.monotonic() - self.changed_at > limit_s:
            key = "stall_timeout_s" if self.last else "start_timeout_s"
            raise errors.TransientError(f"{self.run.label}: no status update for {limit_s:.0f} s (launch.{key})")

    def _report(self, status: dict[str, Any]) -> None:
        if "resumed_at" in status and "resumed_at" not in self.last:
            log.info("%s: resumed at step %d, no sample lost", self.run.label, status["resumed_at"])
        if "step" in status:
            reached_end = status["step"] == status["steps"] != self.last.get("step")
            moved = reached_end or status["epoch"] != self.last.get("epoch")
            due = moved or time.monotonic() - self.logged_at > LOG_S
            self.logged_at = time.monotonic() if due else self.logged_at
            extra = {"progress": {"job": self.run.label, **status}}
            (log if due else progress_log).info(progress_line(self.run.label, status), extra=extra)
        if self.mlflow_run and "minival_top1" in status and time.monotonic() - self.sent_at > MLFLOW_S:
            self.sent_at = time.monotonic()
            try:
                _feed_mlflow(self.run.job_uri, self.mlflow_run)
            except errors.EffnetError as error:  # tracking never stops a training; its end sends all epochs again
                log.warning("%s: %s; metrics follow later", self.run.label, error)


def _checked_status(uri: str) -> dict[str, Any]:
    """Reads the status object and checks every field that is displayed."""
    status = read_object(uri)
    for key in ("minival_top1", "data_wait", "resumed_at"):
        if key in status:
            check_object(uri, status, **{key: NUMBER})
    return check_object(uri, status, **STATUS_KEYS) if "step" in status else status


def progress_line(label: str, status: Mapping[str, Any]) -> str:
    """Formats a status as one plain line of progress."""
    minival = f", minival {status['minival_top1']:.1f} %" if "minival_top1" in status else ""
    wait = f" (waits {100 * status['data_wait']:.0f} % for data)" if "data_wait" in status else ""
    return (
        f"{label}: epoch {status['epoch']}/{status['epochs']}, step {status['step']}/{status['steps']}, "
        f"loss {status['loss']:.3f}{minival}, {status['images_per_s']:.0f} images/s{wait}, {_format_left(status)} left"
    )


def describe_progress(label: str, status: Mapping[str, Any]) -> str:
    """Formats a status for a page that shows the first line alone."""
    percent = 100 * status["step"] / max(1, status["steps"])
    return f"{percent:.0f} %, {_format_left(status)} left\n\n{progress_line(label, status)}"


def _format_left(status: Mapping[str, Any]) -> str:
    minutes, seconds = divmod(round(status["eta_s"]) if math.isfinite(status["eta_s"]) else 0, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def _feed_mlflow(job_uri: str, mlflow_run: str) -> None:
    from infra.tracking import runs

    uri = store.join(job_uri, "metrics.jsonl")
    if store.exists(uri):
        runs.log_rows(mlflow_run, read_lines(uri, step=NUMBER, time=NUMBER), EPOCH_METRICS)


def _check_end(run: JobRun, code: int, engine: Engine[Any], job: Handle) -> None:
    """Raises the error of a job that ended without the result that was requested."""
    if stored_result(run) is not None:
        return
    status = _read_object_or_empty(store.join(run.job_uri, "status.json"))
    failure = _read_object_or_empty(store.join(run.job_uri, "failure.json"))
    _raise_error(run, status, failure, code, engine, job)
    # The epoch is no part of the key: another command, with other rungs, has submitted or requested the same job.
    raise errors.TransientError(f"{run.label}: the job of another command stopped at another epoch; it is resumed")


def _raise_error(
    run: JobRun, status: dict[str, Any], failure: dict[str, Any], code: int, engine: Engine[Any], job: Handle
) -> None:
    """Raises the error of a job that ended without a result.

    The job's status and failure objects take precedence over the exit code, which not every engine passes on.
    ``failure`` was written by the first rank that failed, so it is the cause; the other ranks fail as a consequence.
    """
    if status.get("state") == "done":
        return
    if status.get("state") == "preempted":
        raise errors.PreemptedError(f"{run.label}: {status.get('error', 'preempted')}")
    if job.adopted and not failure:
        raise errors.TransientError(f"{run.label}: the supervisor that started this job ended it")
    kind = errors.kind_of(failure.get("exit_code", 1), failure.get("kind", ""))
    if kind is not errors.JobError:
        raise kind(f"{run.label}: {failure.get('error', 'no message')}")
    if not failure:
        _raise_by_exit_code(run, code, engine.logs(job))
    where = f"exit code {code}, log in {job.log}"
    raise errors.JobError(f"{run.label} failed ({where}):{quoted(engine.logs(job))}")


def _raise_by_exit_code(run: JobRun, code: int, logs: str) -> None:
    """Raises by exit code (``models/training/agent.py``) if the job left no failure object.

    Raises:
        PreemptedError: Preempted during start-up, before there was anything to save.
        LostError: Killed, or its machines did not join the rendezvous.
    """
    if code in (errors.PreemptedError.exit_code, SIGNALLED + SIGTERM):
        raise errors.PreemptedError(f"{run.label}: preempted during start-up")
    if code == errors.LostError.exit_code:
        raise errors.LostError(f"{run.label}: {logs.rpartition(chr(10))[2]}")
    if code > SIGNALLED and code - SIGNALLED not in FAULTS:
        hint = ": by a user, or by the system for lack of memory" if code == SIGNALLED + SIGKILL else ""
        raise errors.LostError(f"{run.label}: torchrun or a rank was killed by signal {code - SIGNALLED}{hint}")
