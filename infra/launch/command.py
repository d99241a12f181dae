"""A training job as a command line and an environment: pure functions, tested as text."""

from __future__ import annotations

import sys

from conf.schema import Launch


def torchrun_argv(launch: Launch, module: str, job_uri: str, python: str = sys.executable) -> list[str]:
    """The torchrun command of a job on one node.

    ``--standalone`` lets torchrun choose a free port on this machine, so jobs never collide.

    Args:
        launch: processes and restarts.
        module: one of our doors, ``models.train`` or ``models.evaluate``.
        job_uri: the run folder; the door's only argument.
        python: interpreter of the workers.
    """
    return [
        python, "-m", "torch.distributed.run",
        "--standalone",
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
        "PYTHONUNBUFFERED": "1",  # the last lines must be in the log when a process is killed
    }
