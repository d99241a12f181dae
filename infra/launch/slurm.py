"""The engine of a Slurm cluster: each job is one batch job. Its functions are documented in ``engine.py``.

The job's name is its key and its comment its run folder, so every supervisor finds it. ``launch.engine=slurm`` needs
the installation of effnet at the same path on all nodes, a ``run_dir`` that may be created on each of them, shared or
not, and an object store that they reach.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from conf import schema
from infra import errors, machine, store
from infra.environment import JOBS, inherited
from infra.errors import ConfigError, EffnetError, LostError, PreemptedError, QueueFullError, TransientError
from infra.launch.command import JOB_FOLDER, TOKEN_URI, job_environment
from infra.launch.job import JobSpec
from infra.launch.local import build_argv, job_folder, last_lines, share_token, token_uri
from infra.store import files

POLL_S = 5.0  # between two looks at a job; all jobs share one squeue, at most every POLL_S / 2
LIMITED = False
GRACE_S = 30.0  # between terminating a job and killing it, as of the local engine
_SAVE_S = 90  # before the end of the time limit the job saves its state
_ANSWER_S = 60.0
_SAFE = re.compile(r"[\w@%+=:,./~|&*\[\]-]+")  # what needs no quotes in a line of #SBATCH
_PORTS = (10_000, 20_000)  # first port of the rendezvous and their number, below the ephemeral ports
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_ACTIVE = {*_WAITING, "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}
_CODES = {  # final states whose exit code says nothing
    "COMPLETED": 0,
    "PREEMPTED": PreemptedError.exit_code,
    "TIMEOUT": PreemptedError.exit_code,
    "NODE_FAIL": LostError.exit_code,
    "BOOT_FAIL": LostError.exit_code,
    "OUT_OF_MEMORY": 128 + 9,
    "CANCELLED": 128 + 15,
}
# Reasons of a pending job that no waiting resolves.
_NEVER = re.compile(
    r"(Partition\w*Limit|Invalid\w+|Bad\w+|\w+NotAllowed|DependencyNeverSatisfied|\w+MaxWall\w*|\w+PerJob(Limit)?)"
)


@dataclass
class SlurmJob:
    """A batch job."""

    job_id: int
    label: str
    log: str  # on the first node, and here if the nodes share the folder
    log_uri: str  # the end of that file, if the job failed
    adopted: bool
    queued: bool = True
    reason: str = ""


@dataclass
class _Queue:
    """The last list of this user's jobs, which all jobs of this process share: one request per job is a burden."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    read_at: float = -math.inf
    states: dict[int, _State] | None = None  # None: the controller did not answer


@dataclass(frozen=True)
class _State:
    """What Slurm knows of a job: its state, why it waits, exit code and signal."""

    name: str
    reason: str = ""
    code: int = 0


_queue = _Queue()


def check(launch: schema.Launch) -> None:
    """Lets Slurm check the request (partition, nodes, resources, time limit) without submitting it."""
    script = "\n".join(["#!/bin/bash", *_resources(launch), ""])
    with suppress(QueueFullError):  # it is submitted later
        _sbatch(script, ["--test-only"])


def describe(spec: JobSpec) -> str:
    """Returns the batch script."""
    launch, folder = spec.launch, job_folder(spec)
    environment = job_environment(launch, machine.cores(), str(spec.run_dir / "cache"))
    if launch.nnodes > 1:
        environment[TOKEN_URI] = token_uri(spec.job_uri)
    environment[JOB_FOLDER] = str(folder)
    del environment["OMP_NUM_THREADS"]  # this machine's; computed on the node instead
    lines = [
        "#!/bin/bash",
        _directive("job-name", spec.key),
        _directive("comment", spec.job_uri),
        *_resources(launch),
        "#SBATCH --output=/dev/null",
        "#SBATCH --requeue",
        f"#SBATCH --signal=TERM@{_SAVE_S}",
        "#SBATCH --dependency=singleton",
        "",
        # By the script: Slurm starts no job for whose --output the node has no folder, and does not say why.
        f"folder={shlex.quote(str(folder))}",
        'mkdir -p -m 700 -- "$folder" && log=$folder/slurm-$SLURM_JOB_ID.txt || log=$(mktemp)',
        'exec >> "$log" 2>&1',
        "trap : TERM  # the steps receive it as well: they save their state and end",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f"export OMP_NUM_THREADS={launch.threads_per_proc or _threads(launch)}",
        *(_rendezvous() if launch.nnodes > 1 else []),
        'rm -rf -- "$folder/scratch"  # left behind by processes that were killed',
        f"srun --kill-on-bad-exit=1 {_step_options(launch)}{shlex.join(build_argv(spec))}",
        "code=$?",
        'rm -rf -- "$folder/scratch"',
        f'[ $code -eq 0 ] || tail -n 200 "$log" | {shlex.join(_store_command(spec.job_uri))}',
        f'if [ $code -eq {LostError.exit_code} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {launch.relaunches} ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"  # a node is lost, which Slurm itself notices later',
        "fi",
        "exit $code",
    ]
    return "\n".join(lines)


def _store_command(job_uri: str) -> list[str]:
    """Writes the end of the output, its standard input, where ``logs`` reads it if the nodes share no folder."""
    program = "import os, sys; from infra import store; "
    program += 'store.write(sys.argv[1] + os.environ["SLURM_JOB_ID"] + ".txt", sys.stdin.buffer.read())'
    return [sys.executable, "-c", program, store.join(job_uri, "slurm-")]


def _resources(launch: schema.Launch) -> list[str]:
    """The lines of a script that request machines."""
    slurm = launch.slurm
    gpus = ":".join(filter(None, ["gpu", slurm.gpu_type, str(launch.gpus_per_node)])) if launch.gpus_per_node else None
    options = {
        "nodes": launch.nnodes,
        "ntasks-per-node": 1,
        "gres": gpus,
        "cpus-per-task": launch.cpus_per_node,
        "mem": f"{launch.memory_gb}G" if launch.memory_gb else None,
        "partition": slurm.partition,
        "account": slurm.account,
        "time": slurm.time,
        "constraint": slurm.constraint,
    }
    given = [_directive(name, str(value)) for name, value in options.items() if value is not None]
    return [*given, *(f"#SBATCH {option}" for option in slurm.options)]


def _directive(option: str, value: str) -> str:
    if not _SAFE.fullmatch(value):
        raise ConfigError(f"launch.engine=slurm: {value!r} has characters that --{option} of sbatch does not take")
    return f"#SBATCH --{option}={value}"


def _threads(launch: schema.Launch) -> str:
    """Threads per process, computed on the node by the shell, at least 1."""
    return f"$(( (threads = $(nproc) / {launch.nproc_per_node}) > 0 ? threads : 1 ))"


def _rendezvous() -> list[str]:
    """Exports the address of the first node, and a port that follows from the job's number."""
    first, count = _PORTS
    return [
        'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        'address=$(scontrol --oneliner show node "$first" | sed -n "s/.* NodeAddr=\\([^ ]*\\).*/\\1/p")',
        f"export PET_RDZV_ENDPOINT=$address:$(( {first} + SLURM_JOB_ID % {count} ))  # torchrun's --rdzv-endpoint",
    ]


def _step_options(launch: schema.Launch) -> str:
    """Srun does not take the cores of a task from sbatch."""
    return f"--cpus-per-task={launch.cpus_per_node} " if launch.cpus_per_node else ""


def submit(spec: JobSpec) -> SlurmJob:
    """Submits the job. Of two supervisors that do so concurrently, the second one adopts the job of the first."""
    script = describe(spec)
    with files.errors(job_folder(spec)):
        files.make_private(job_folder(spec))
    if spec.launch.nnodes > 1:
        share_token(spec.job_uri)
    job_id = int(_sbatch(script, ["--parsable"]).partition(";")[0])
    first = min([job_id, *_active_ids(spec)])
    if first != job_id:
        _run(["scancel", str(job_id)])
    return _job(spec, first, adopted=first != job_id)


def find(spec: JobSpec) -> SlurmJob | None:
    """Returns the waiting or running job of this key and run folder, whoever submitted it."""
    ids = _active_ids(spec)
    return _job(spec, min(ids), adopted=True) if ids else None


def _active_ids(spec: JobSpec) -> list[int]:
    lines = _run(["squeue", "--noheader", f"--name={spec.key}", "--format=%i|%T|%k"]).splitlines()
    rows = [line.split("|", 2) for line in lines]
    return [int(number) for number, state, uri in rows if state in _ACTIVE and uri == spec.job_uri]


def _job(spec: JobSpec, job_id: int, *, adopted: bool) -> SlurmJob:
    log = str(job_folder(spec) / f"slurm-{job_id}.txt")
    return SlurmJob(job_id, spec.label, log, store.join(spec.job_uri, f"slurm-{job_id}.txt"), adopted)


def poll(job: SlurmJob) -> int | None:
    """Returns None while the job waits or runs, then its exit code.

    Raises:
        ConfigError: The job waits for what this cluster does not have.
        JobError: A user cancelled the job; it is not started again.
    """
    try:
        state = _listed_state(job.job_id)
        if state is None or state.name not in _ACTIVE:  # its end is read once, with the exit code
            state = _read_state(job)
    except TransientError:
        return None  # the job does not need the controller; the timeouts of its status object apply
    if state is None:
        return 0
    job.queued = state.name in _WAITING
    job.reason = state.reason.replace("None", "") if job.queued else ""
    if job.queued and _NEVER.fullmatch(state.reason):
        raise ConfigError(f"launch.engine=slurm: job {job.job_id} of {job.label} can never start: {state.reason}")
    if state.name in _ACTIVE:
        return None
    if state.name == "CANCELLED" and not job.adopted:
        raise errors.JobError(f"{job.label}: job {job.job_id} was cancelled in Slurm; the same command resumes it")
    return _CODES.get(state.name, state.code)


def _listed_state(job_id: int) -> _State | None:
    """The state of a job by a list that is at most half a polling interval old; None if the list does not have it.

    Raises:
        TransientError: The controller did not answer.
    """
    with _queue.lock:
        if time.monotonic() - _queue.read_at > POLL_S / 2:
            try:
                listed = _run(["squeue", "--me", "--noheader", "--format=%i|%T|%r"])
                rows = re.findall(r"(?m)^(\d+)\|(\w+)\|(.*)$", listed)
                _queue.states = {int(number): _State(name, reason) for number, name, reason in rows}
            except (TransientError, _UnknownError):
                _queue.states = None
            _queue.read_at = time.monotonic()
        if _queue.states is None:
            raise TransientError("launch.engine=slurm: squeue does not answer")
        return _queue.states.get(job_id)


def _read_state(job: SlurmJob) -> _State | None:
    """Asks the controller, which forgets a job minutes after its end, and then the accounting, if there is one."""
    try:
        text = _run(["scontrol", "--oneliner", "show", "job", str(job.job_id)])
        fields = dict(word.partition("=")[::2] for word in text.split() if "=" in word)
        return _State(fields["JobState"].split("+")[0], fields.get("Reason", ""), _exit_code(fields["ExitCode"]))
    except _UnknownError as error:
        if "invalid job id" not in str(error).lower():  # e.g. its authentication is restarted: the job may run
            raise errors.TransientError(f"launch.engine=slurm: {error}") from error
    with suppress(_UnknownError, ConfigError):  # ConfigError: there is no sacct
        argv = ["sacct", "--jobs", str(job.job_id), "--allocations", "--noheader", "--parsable2"]
        lines = _run([*argv, "--format=State,ExitCode"]).splitlines()
        if lines:
            state, code = lines[-1].split("|")
            return _State(state.split()[0], "", _exit_code(code))  # CANCELLED by 1000
    return None


def _exit_code(text: str) -> int:
    """``CODE:SIGNAL`` as one number."""
    code, _, number = text.partition(":")
    return 128 + int(number) if int(number or 0) else int(code)


def logs(job: SlurmJob) -> str:
    """Returns the last lines of the job's output: of its file, if the nodes share the folder, or of the object."""
    with suppress(FileNotFoundError):
        return last_lines(Path(job.log).read_text(encoding="utf-8", errors="replace"))
    with suppress(EffnetError):
        return last_lines(store.read(job.log_uri).decode(errors="replace"))
    return ""


def cancel(job: SlurmJob) -> None:
    """Removes a waiting job, lets a running one save its state, and waits for its end; an adopted one is left."""
    if job.adopted:
        return
    began, signalled = time.monotonic(), False
    while (state := _state_or_active(job)) is not None and time.monotonic() - began < 2 * GRACE_S:
        with suppress(EffnetError):  # it has just ended, or the controller is busy
            if state.name in _WAITING or time.monotonic() - began > GRACE_S:
                _run(["scancel", str(job.job_id)])
            elif not signalled and state.name == "RUNNING":
                _run(["scancel", "--signal=TERM", str(job.job_id)])
                signalled = True
        time.sleep(0.5)


def _state_or_active(job: SlurmJob) -> _State | None:
    """The state of a job that has not ended; None for one that has."""
    try:
        state = _read_state(job)
    except TransientError:
        return _State("RUNNING")
    return state if state is not None and state.name in _ACTIVE else None


def _sbatch(script: str, options: list[str]) -> str:
    try:
        return _run(["sbatch", *options], script)
    except _UnknownError as error:
        raise ConfigError(f"launch.engine=slurm: sbatch refuses the job: {error}") from error


class _UnknownError(EffnetError):
    """A refusal by a command of Slurm: the request is wrong, or it does not know the job."""


def _run(argv: list[str], stdin: str = "") -> str:
    """Runs a command of Slurm.

    Raises:
        ConfigError: The command is not installed.
        TransientError: The controller does not answer.
        QueueFullError: The user has as many jobs as the cluster allows.
        _UnknownError: The command refuses the request.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            env=_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_ANSWER_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"launch.engine=slurm: no {argv[0]} on PATH; run this on a login node of the cluster"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"launch.engine=slurm: {argv[0]} does not answer within {_ANSWER_S:.0f} s") from error
    if done.returncode == 0:
        return done.stdout
    message = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit {done.returncode}")
    if re.search(r"(Unable to contact|Socket timed out|Connection refused|temporarily unable|Zero Bytes)", done.stderr):
        raise TransientError(f"launch.engine=slurm: {message}")
    if limit := re.search(r"(Assoc|QOS)\w*SubmitJobs?\w*", done.stderr):
        raise QueueFullError(f"launch.engine=slurm: your limit of submitted jobs is reached ({limit[0]})")
    raise _UnknownError(message)


def _environment() -> dict[str, str]:
    """The variables of a job: the script alone is the request, so sbatch takes no options from the environment."""
    kept = inherited(os.environ, JOBS)
    return {name: value for name, value in kept.items() if not name.startswith(("SBATCH_", "SLURM_"))} | {
        name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ
    }
