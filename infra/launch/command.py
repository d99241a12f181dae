"""A training job as a command line and an environment: pure functions, tested as text."""

from __future__ import annotations

import sys

from conf.schema import Launch


def torchrun_argv(launch: Launch, module: str, job_uri: str, python: str = sys.executable) -> list[str]:
    """The torchrun command of a job; on several nodes the same command on each.

    On one node ``--standalone`` lets torchrun choose a free port, so jobs never collide. On several, their number is
    fixed: torchrun's elastic range loses the survivors when its store's host goes. A lost node ends the job, and the
    same run folder goes on with the nodes at hand, to the same bits (``models/training/step.py``).

    Args:
        launch: nodes, processes, restarts, rendezvous.
        module: one of our doors, ``models.train`` or ``models.evaluate``.
        job_uri: the run folder; the door's only argument.
        python: interpreter of the workers.
    """
    one = ["--standalone"]
    several = [
        f"--nnodes={launch.nnodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={launch.rendezvous}",
        f"--rdzv-id={job_uri.rpartition('/')[2]}",
    ]
    return [
        python, "-m", "torch.distributed.run",
        *(one if launch.nnodes == 1 else several),
        f"--nproc-per-node={launch.nproc_per_node}",
        f"--max-restarts={launch.max_restarts}",
        "-m", module,
        job_uri,
    ]  # fmt: skip


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
