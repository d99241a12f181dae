"""The engine of this machine: jobs as child processes. Its functions are documented in ``engine.py``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from conf import schema
from conf.text import logger
from infra import machine, store
from infra.environment import JOBS, inherited
from infra.errors import ConfigError, EffnetError, TransientError
from infra.launch import guard, lease
from infra.launch.command import JOB_FOLDER, RENDEZVOUS_TOKEN, job_environment, torchrun_argv
from infra.launch.devices import Devices
from infra.launch.job import JobSpec
from infra.launch.lease import Lease
from infra.store import files

POLL_S = 0.2
LIMITED = True
GRACE_S = 30.0  # between terminating a job and killing it: the job first saves its state, in 20 s at most
LOG_TAIL_LINES = 25
LOG_OBJECT = "log.txt"  # in the run folder: the end of the output
KEPT_BYTES = 1_000_000
NO_DEVICES = Devices()
_RETRY_S = 1.0  # between two attempts to renew a lease while the store does not answer
_LOOK_S = 2.0  # between two looks at the lease of a job on another machine
log = logger()
_TORCHRUN_REPORT = re.compile(r"torch/(distributed/elastic/.*failed|multiprocessing/.*Terminating process)")


@dataclass(frozen=True)
class Command:
    """A command, the variables that it needs beyond the inherited ones, and a folder for its lock and log."""

    argv: list[str]
    env: dict[str, str]
    folder: Path
    locks: tuple[int, ...] = ()  # descriptors that stay open until the last process of the command has ended

    @property
    def log_path(self) -> Path:
        """The file that receives the output."""
        return self.folder / "log.txt"

    @property
    def lock_path(self) -> Path:
        """The file that is locked while the command runs."""
        return self.folder / "lock"


@dataclass
class LocalJob:
    """A running job: a child of this process, or one that another supervisor started (``process`` is None)."""

    command: Command
    process: subprocess.Popen[bytes] | None = None
    death_fd: int | None = None  # closed by the kernel when this process dies; the guard then ends the job
    queued: bool = False
    reason: str = ""
    lease: Lease | None = None  # held by this process
    elsewhere: str = ""  # run folder of a job that another machine runs
    place: str = "this machine"  # name of that machine
    looked_at: float = 0.0  # when the lease of that job was read last

    @property
    def adopted(self) -> bool:
        """Whether another supervisor started it."""
        return self.process is None

    @property
    def log(self) -> str:
        """Path of the file with its output."""
        return str(self.command.log_path)


def check(launch: schema.Launch) -> None:
    """Compares the processes of a job with the GPUs, or else the cores, of this machine.

    More processes than cores compute the same, only slower: a job of eight ranks can be tried on a laptop. So they are
    named and not refused.

    Raises:
        ConfigError: There are GPUs, but fewer than processes.
    """
    processes, gpus, cores = launch.nproc_per_node, len(machine.gpus()), machine.cores()
    usable = gpus > 0 and "+cpu" not in machine.facts().get("torch", "")
    if usable and launch.uses_gpus:
        if processes > gpus:
            raise ConfigError(
                f"launch.nproc_per_node={processes} needs as many GPUs, and a job may use {gpus} of this machine; with "
                "launch.device=cpu it trains on the cores"
            )
        if processes * launch.jobs_at_once < gpus:
            log.info("a job uses %d of the %d GPUs of this machine (launch.nproc_per_node)", processes, gpus)
        return
    if usable:
        log.info("jobs use the cores of this machine, not its GPUs (launch.device=cpu)")
    if processes > cores:
        log.warning(
            "launch.nproc_per_node=%d: the processes of a job share %s and no GPU, which is slower than "
            "launch.nproc_per_node=%d",
            *(processes, f"{cores} cores" if cores > 1 else "one core", cores),
        )


def describe(spec: JobSpec) -> str:
    """Returns the torchrun command line."""
    return shlex.join(build_argv(spec))


def submit(spec: JobSpec, devices: Devices = NO_DEVICES) -> LocalJob:
    """Starts a job under its guard and its lease. The job ends when this process ends, even on SIGKILL.

    Raises:
        TransientError: Another machine runs this job.
    """
    if spec.launch.nnodes > 1:  # the same command runs on all machines, which meet at the rendezvous
        return start(build_command(spec, devices))
    held = lease.acquire(spec.job_uri, lease.identify(job_folder(spec)))
    if held is None:
        worker = lease.holder_elsewhere(spec.job_uri, "") or "another machine"
        raise TransientError(f"{spec.label}: {worker} has just started this job")
    try:
        job = start(build_command(spec, devices))
    except BaseException:
        held.release()
        raise
    job.lease = held
    threading.Thread(target=_renew, args=(job, held, spec.label), name="lease", daemon=True).start()
    return job


def _renew(job: LocalJob, held: Lease, label: str) -> None:
    """Renews a lease while its job runs; kills the job if another machine has taken the lease."""
    process, pause_s = job.process, lease.RENEW_S
    assert process is not None  # noqa: S101 - this process started it
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause_s)
            return
        try:
            if not held.renew():
                log.warning("%s: another machine took the lease, which expired without an answer of the store", label)
                process.kill()
                return
            pause_s = lease.RENEW_S
        except EffnetError:
            pause_s = _RETRY_S


def build_command(spec: JobSpec, devices: Devices = NO_DEVICES) -> Command:
    """The torchrun command of a job on this machine."""
    environment = job_environment(spec.launch, machine.cores(), str(spec.run_dir / "cache"))
    if spec.launch.nnodes > 1:
        environment[RENDEZVOUS_TOKEN] = store.read(share_token(spec.job_uri)).decode()
    return Command(build_argv(spec), environment | devices.environment, job_folder(spec), devices.locks)


def build_argv(spec: JobSpec) -> list[str]:
    """The words of the torchrun command, by the interpreter of this process."""
    return torchrun_argv(spec.launch, spec.module, spec.job_uri, sys.executable)


def job_folder(spec: JobSpec) -> Path:
    """The local folder of a job: its lock and log."""
    return spec.run_dir / "jobs" / spec.key


def share_token(job_uri: str) -> str:
    """Stores the random token that the machines of one job share, which only readers of its run folder can know.

    Returns:
        Its address, which is ``token_uri`` of the job.
    """
    store.write(uri := token_uri(job_uri), secrets.token_hex(16).encode(), if_absent=True)
    return uri


def token_uri(job_uri: str) -> str:
    """Address of a job's token."""
    return store.join(job_uri, "rendezvous")


def start(command: Command) -> LocalJob:
    """Starts a command under a guard, which ends it when this process ends, even on SIGKILL."""
    with files.errors(command.folder):
        files.make_private(command.folder)
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-E",
                guard.__file__,
                str(read_end),
                str(command.lock_path),
                str(command.log_path),
                str(GRACE_S),
                *command.argv,
            ],
            env={**inherited(os.environ, JOBS), **command.env, JOB_FOLDER: str(command.folder)},
            umask=files.umask_in(command.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the job in order
            pass_fds=(read_end, *command.locks),
        )
    finally:
        os.close(read_end)
    return LocalJob(command, process, write_end)


def find(spec: JobSpec) -> LocalJob | None:
    """Returns the running job of this key, whichever supervisor of whichever machine started it; None if there is none.

    Only machines that share the object store are seen.
    """
    folder = job_folder(spec)
    if (job := find_in(folder)) is not None or spec.launch.nnodes > 1:
        return job
    worker = lease.holder_elsewhere(spec.job_uri, lease.identify(folder))
    return LocalJob(Command([], {}, folder), elsewhere=spec.job_uri, place=worker) if worker else None


def find_in(folder: Path) -> LocalJob | None:
    """Returns the command that runs in a folder; None if there is none."""
    command = Command([], {}, folder)
    return LocalJob(command) if _is_locked(command.lock_path) else None


def poll(job: LocalJob) -> int | None:
    """Returns None while the job runs, then its exit code; 0 for an adopted job, whose status object is authoritative.

    The code is 128 + N if signal N ended the guard, torchrun or the first failing rank (``models/training/agent.py``).
    """
    if job.elsewhere:
        return _poll_elsewhere(job)
    if job.process is None:
        return None if _is_locked(job.command.lock_path) else 0
    code = job.process.poll()
    return 128 - code if code is not None and code < 0 else code


def _poll_elsewhere(job: LocalJob) -> int | None:
    if time.monotonic() - job.looked_at < _LOOK_S:
        return None
    job.looked_at = time.monotonic()
    with contextlib.suppress(TransientError):
        return None if lease.holder_elsewhere(job.elsewhere, lease.identify(job.command.folder)) else 0
    return None


def logs(job: LocalJob) -> str:
    """Returns the last lines that the workers printed, without torchrun's report of their end, which is longer."""
    return last_lines(_read_log(job))


def last_lines(log: str) -> str:
    """Returns the end of a job's output up to torchrun's report."""
    lines = log.splitlines()
    report = next((i for i, line in enumerate(lines) if _TORCHRUN_REPORT.search(line)), len(lines))
    return "\n".join(lines[:report][-LOG_TAIL_LINES:])


def _read_log(job: LocalJob) -> str:
    with contextlib.suppress(FileNotFoundError):
        return job.command.log_path.read_text(encoding="utf-8", errors="replace")
    return ""


def cancel(job: LocalJob) -> None:
    """Ends a job of this process and waits until all its processes are gone; an adopted job is left running."""
    if job.process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        job.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        job.process.wait(GRACE_S + 15)
    if job.death_fd is not None:
        os.close(job.death_fd)
        job.death_fd = None
    if job.lease is not None and job.process.poll() not in (None, guard.ALREADY_RUNNING):
        _keep_log(job, job.lease)
        job.lease.release()
    job.lease = None


def _keep_log(job: LocalJob, held: Lease) -> None:
    """Writes the end of a job's output into its run folder, for `effnet logs` on another machine."""
    with contextlib.suppress(OSError, EffnetError), job.command.log_path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - KEPT_BYTES))
        store.write(store.join(held.uri.rpartition("/")[0], LOG_OBJECT), file.read())


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
