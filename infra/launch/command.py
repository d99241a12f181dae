"""Builds the command line and the environment of a training job; starts nothing."""

from __future__ import annotations

import sys

from conf.schema import Launch
from infra import machine

RENDEZVOUS_BACKEND = "effnet"  # models/training/rendezvous.py
RENDEZVOUS_TOKEN = "EFFNET_RENDEZVOUS_TOKEN"  # noqa: S105 - the name of a variable, whose value the machines of a job share
TOKEN_URI = "EFFNET_RENDEZVOUS_TOKEN_URI"  # noqa: S105 - where a machine reads it instead
RESOLVE_S = "EFFNET_RESOLVE_S"  # how long the name of the first machine may be unknown
ROUND = "EFFNET_ROUND"  # how many times the ranks were restarted; the same on all machines
GPUS_PER_NODE = "EFFNET_GPUS_PER_NODE"  # how many a job requested of a scheduler, if any
TRAINING_CODE = "EFFNET_TRAINING_CODE"  # digest of the flow's training code, which an image must have too
JOB_FOLDER = "EFFNET_JOB_FOLDER"  # the job's folder on this machine


def torchrun_argv(launch: Launch, module: str, job_uri: str, python: str = sys.executable) -> list[str]:
    """Returns the torchrun command of a job; every node of a multi-node job runs the same command.

    On one node the agent binds a free port of the loopback interface, so jobs never collide and cannot be reached
    from the network. The number of nodes is fixed: torchrun's elastic range loses the surviving nodes when the host
    of its store fails. A lost node ends the job; the same run folder then resumes on the available nodes and ends
    with identical bits (``models/training/step.py``). Without ``launch.rendezvous`` several nodes take its address from
    the variable ``PET_RDZV_ENDPOINT``, which an engine sets that chooses the machines itself.

    Args:
        launch: Nodes, processes, restarts and rendezvous.
        module: An entry point, ``models.train`` or ``models.evaluate``.
        job_uri: The run folder; the entry point's only argument.
        python: The interpreter of the workers.
    """
    rendezvous = "127.0.0.1:0" if launch.nnodes == 1 else launch.rendezvous
    endpoint = [f"--rdzv-endpoint={rendezvous}"] if rendezvous else []
    interface = [f"--rdzv-conf=interface={launch.interface}"] if launch.interface else []
    return [
        python,
        "-m",
        "models.training.agent",
        f"--nnodes={launch.nnodes}",
        f"--rdzv-backend={RENDEZVOUS_BACKEND}",
        *endpoint,
        *interface,
        f"--rdzv-id={job_uri.rpartition('/')[2]}",
        f"--nproc-per-node={launch.nproc_per_node}",
        f"--max-restarts={launch.max_restarts}",
        "-m",
        module,
        job_uri,
    ]


def job_environment(launch: Launch, cores: int, cache: str) -> dict[str, str]:
    """Returns the variables that a job needs in addition to the inherited ones (infra/environment.py)."""
    threads = launch.threads_per_proc or max(1, cores // launch.nproc_per_node)
    gpus = {GPUS_PER_NODE: str(launch.gpus_per_node)} if launch.gpus_per_node else {}
    if not launch.uses_gpus:
        gpus = {"CUDA_VISIBLE_DEVICES": ""}
    return (
        gpus
        | machine.import_path()
        | {
            "OMP_NUM_THREADS": str(threads),
            "EFFNET_CACHE": cache,
            "TORCH_CPP_LOG_LEVEL": "ERROR",  # c10d warns about IPv6 on every start
            # On a CPU a step frees and allocates hundreds of megabytes; glibc would return them to the system, which
            # zeroes them page by page every time: 15 to 25 % of a step (benchmarks/README.md, step).
            "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
            "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
            "PYTHONUTF8": "1",  # names of files are the same in any locale
            "PYTHONUNBUFFERED": "1",  # the log must hold the last lines when a process is killed
        }
    )
