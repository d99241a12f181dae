"""torchrun with effnet's rendezvous and with an exit code that reports how the job ended.

``python -m models.training.agent TORCHRUN_ARGUMENTS``. The exit code is that of the rank that failed first, 128 + N if
signal N ended it, 8 if the agent itself received a termination signal, 75 if the rendezvous failed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError

from infra import store
from infra.errors import LostError, PreemptedError
from infra.launch.command import JOB_FOLDER, RENDEZVOUS_TOKEN, TOKEN_URI
from infra.launch.guard import SCRATCH
from models.training import rendezvous


def main(argv: list[str]) -> int:
    """Runs one node's ranks of a job; returns the exit code."""
    rendezvous.register()
    if uri := os.environ.get(TOKEN_URI):
        os.environ[RENDEZVOUS_TOKEN] = store.read(uri).decode()
    if JOB_FOLDER in os.environ:  # or torchrun leaves a folder in /tmp after each job
        argv = [f"--log-dir={Path(os.environ[JOB_FOLDER], SCRATCH, 'torchrun')}", *argv]
    try:
        run.main(argv)
    except SignalException as error:
        sys.stderr.write(f"torchrun: terminated by {error.sigval.name}\n")
        return PreemptedError.exit_code
    except ChildFailedError as error:
        sys.stderr.write(f"{error}\n")
        code = error.get_first_failure()[1].exitcode
        return 128 - code if code < 0 else code
    except RendezvousError as error:
        sys.stderr.write(f"torchrun: {error}\n")
        return LostError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
