"""torchrun with effnet's rendezvous, ranks that import nothing, and an exit code that reports how the job ended.

``python -m models.training.agent TORCHRUN_ARGUMENTS -m MODULE ARGUMENTS``. The exit code is that of the rank that
failed first, 128 + N if signal N ended it, 8 if the agent itself received a termination signal, 75 if the rendezvous
failed.

torchrun starts an interpreter per rank, and importing torch and MODULE takes 2 s of a core in every one. Here the agent
imports MODULE once, and the ranks are forks of it that call ``MODULE.main()``. The agent itself must therefore neither
compute nor touch a GPU: threads and CUDA contexts do not survive a fork.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import elastic_launch

from infra import store
from infra.errors import LostError, PreemptedError
from infra.launch.command import JOB_FOLDER, RENDEZVOUS_TOKEN, TOKEN_URI
from infra.launch.guard import PR_SET_PDEATHSIG, SCRATCH, prctl
from models.training import rendezvous

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main(argv: list[str]) -> int:
    """Runs one node's ranks of a job; returns the exit code."""
    rendezvous.register()
    if uri := os.environ.get(TOKEN_URI):
        os.environ[RENDEZVOUS_TOKEN] = store.read(uri).decode()
    if JOB_FOLDER in os.environ:  # or torchrun leaves a folder in /tmp after each job
        argv = [f"--log-dir={Path(os.environ[JOB_FOLDER], SCRATCH, 'torchrun')}", *argv]
    config, _, words = run.config_from_args(run.parse_args(argv))  # type: ignore[no-untyped-call]
    module, *arguments = words[words.index("-m") + 1 :]
    importlib.import_module(module)
    gc.freeze()  # or agent and ranks look through what is imported again and again, and at their end
    config.start_method = "fork"
    sys.unraisablehook = _raise_again
    try:
        elastic_launch(config, run_rank)(os.getpid(), module, *arguments)
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


def _raise_again(lost: UnraisableHookArgs) -> None:
    """Raises a termination signal again, in 0.1 s, that Python has ignored.

    torchrun's handler raises an exception wherever the program is; in a callback, as those around a fork, Python prints
    it and continues.
    """
    error = lost.exc_value
    if not isinstance(error, SignalException):
        sys.__unraisablehook__(lost)
        return

    def raise_it(*_: object) -> None:
        raise error

    signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, 0.1)


def run_rank(agent: int, module: str, *arguments: str) -> None:
    """Runs a rank in the process that torchrun has forked for it, as ``python -m MODULE ARGUMENTS`` would.

    Args:
        agent: Process id of the agent; 1 in a container that runs nothing else.
        module: Module of the entry point.
        arguments: Its command line.

    Raises:
        SystemExit: With the exit code of ``MODULE.main()``.
    """
    _die_with(agent)
    os.setsid()  # a signal to the agent's group is for the agent alone, which ends its ranks in order
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # not the agent's handlers
    sys.argv = [module, *arguments]
    code = importlib.import_module(module).main()
    if code:  # torchrun waits for the return of a rank that succeeded
        sys.exit(code)


def _die_with(agent: int) -> None:
    """Asks Linux to kill this rank when the agent ends for any reason; they are in different sessions."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != agent:  # it ended before prctl took effect
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
