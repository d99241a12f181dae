"""A training job as a command line and an environment: pure functions, tested as text."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from conf.schema import Launch

RENDEZVOUS_BACKEND = "effnet"  # models/training/rendezvous.py
RENDEZVOUS_TOKEN = "EFFNET_RENDEZVOUS_TOKEN"  # noqa: S105 - a variable's name; the machines of a job share its value
ROUND = "EFFNET_ROUND"  # how often the ranks were restarted, the same on all machines
JOB_FOLDER = "EFFNET_JOB_FOLDER"  # the job's folder on this machine
NOT_INHERITED = {  # variables (a * stands for any ending) that torchrun or a rank would take for their own
    "PET_*": "torchrun reads each of its options from PET_OPTION",
    "TORCHELASTIC_*": "an outer torchrun's restart count, error file and signals",
    "MASTER_*": "the address of an outer job's store",
    "RANK": "the place of a process in an outer job",
    "LOCAL_RANK": "as RANK",
    "NODE_RANK": "as RANK",
    "GROUP_*": "as RANK",
    "ROLE_*": "as RANK",
    "WORLD_SIZE": "the number of processes of an outer job",
    "LOCAL_WORLD_SIZE": "as WORLD_SIZE",
    ROUND: "a rank's count of restarts",
    RENDEZVOUS_TOKEN: "another job's",
    JOB_FOLDER: "another job's",
    # OMPI_*, PMI_* and SLURM_* stay: neither torchrun nor our ranks read them, and NCCL's plugins may.
}


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a job gets of its parent's environment: all but ``NOT_INHERITED``."""
    names = tuple(NOT_INHERITED)
    beginnings = tuple(name[:-1] for name in names if name.endswith("*"))
    return {key: value for key, value in environment.items() if key not in names and not key.startswith(beginnings)}


def torchrun_argv(launch: Launch, module: str, job_uri: str, python: str = sys.executable) -> list[str]:
    """The torchrun command of a job; on several nodes the same command on each.

    On one node the agent takes a free port of the loopback interface, so jobs never collide and nobody else on the
    network reaches them. The number of nodes is fixed: torchrun's elastic range loses the survivors when its store's
    host goes. A lost node ends the job, and the same run folder resumes with the nodes at hand, to the same bits
    (``models/training/step.py``).

    Args:
        launch: nodes, processes, restarts, rendezvous.
        module: an entry point, ``models.train`` or ``models.evaluate``.
        job_uri: the run folder; the entry point's only argument.
        python: interpreter of the workers.
    """
    interface = [f"--rdzv-conf=interface={launch.interface}"] if launch.interface else []
    return [
        python,
        "-m",
        "models.training.agent",
        f"--nnodes={launch.nnodes}",
        f"--rdzv-backend={RENDEZVOUS_BACKEND}",
        f"--rdzv-endpoint={'127.0.0.1:0' if launch.nnodes == 1 else launch.rendezvous}",
        *interface,
        f"--rdzv-id={job_uri.rpartition('/')[2]}",
        f"--nproc-per-node={launch.nproc_per_node}",
        f"--max-restarts={launch.max_restarts}",
        "-m",
        module,
        job_uri,
    ]


def job_environment(launch: Launch, cores: int, cache: str) -> dict[str, str]:
    """Variables that a job needs beside those of its parent (addresses and credentials of the services)."""
    threads = launch.threads_per_proc or max(1, cores // launch.nproc_per_node)
    return {
        "OMP_NUM_THREADS": str(threads),
        "EFFNET_CACHE": cache,
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # c10d warns about IPv6 on every start
        # On a CPU a step frees and takes hundreds of megabytes; glibc would give them back to the system and have
        # them zeroed page by page each time: 15 to 25 % of a step (benchmarks/README.md, step).
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
        "PYTHONUNBUFFERED": "1",  # the last lines must be in the log when a process is killed
    }
