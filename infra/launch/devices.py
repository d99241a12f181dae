"""The GPUs of a worker: which jobs use which, as locks that the system releases when the last process of a job ends."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ConfigError
from infra.store import files

VARIABLE = "EFFNET_GPUS"  # of a worker: the indices of its GPUs, separated by commas; empty without any


@dataclass(frozen=True)
class Devices:
    """GPUs of one job, and the descriptors of their locks; the processes of the job inherit these."""

    gpus: tuple[str, ...] = ()
    locks: tuple[int, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The variable that restricts a process to these GPUs; nothing on a machine without GPUs."""
        if not self.gpus:
            return {}
        # By the order of nvidia-smi, whose indices these are.
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def machine_folder() -> Path:
    """Returns the folder of the locks, the same for all workers of this user on this machine."""
    return Path(tempfile.gettempdir(), f"effnet-gpus-{os.getuid()}")


def of_worker() -> list[str] | None:
    """Returns the GPUs of this worker; None if this process does not run on one of ``effnet worker``."""
    value = os.environ.get(VARIABLE)
    return None if value is None else [gpu for gpu in value.split(",") if gpu]


def choose(present: Sequence[str], requested: str) -> list[str]:
    """Returns the GPUs that a worker uses.

    Args:
        present: Indices of the GPUs of this machine.
        requested: Indices separated by commas, ``none``, or empty for all.

    Raises:
        ConfigError: A requested GPU is not there.
    """
    if requested in ("", "none"):
        return [] if requested else list(present)
    gpus = requested.split(",")
    if missing := [gpu for gpu in gpus if gpu not in present]:
        there = f"GPUs {', '.join(present)}" if present else "no GPU"
        raise ConfigError(f"--gpus {requested}: this machine has {there}; there is no GPU {missing[0]}")
    return list(dict.fromkeys(gpus))


def count_jobs(gpus: Sequence[str], per_job: int, without: int) -> int:
    """Returns how many jobs run concurrently; ``without`` on a machine without GPUs.

    Raises:
        ConfigError: The GPUs are fewer than those of one job.
    """
    if gpus and len(gpus) < per_job:
        raise ConfigError(f"launch.nproc_per_node={per_job} GPUs a job, but this worker has {len(gpus)}")
    return len(gpus) // per_job if gpus else without


@contextmanager
def lock(folder: Path, gpus: Sequence[str], count: int) -> Iterator[Devices | None]:
    """Locks ``count`` free GPUs within the block; yields None if so many are not free.

    Args:
        folder: Folder of the locks.
        gpus: GPUs of the worker; without any, nothing is locked.
        count: Number of GPUs of the job.

    Raises:
        ConfigError: The worker has fewer GPUs than the job needs, or the folder is another user's.
    """
    if not gpus:
        yield Devices()
        return
    if count > len(gpus):
        raise ConfigError(f"the job needs {count} GPUs (launch.nproc_per_node), this worker has {len(gpus)}")
    files.make_private(folder)
    if folder.lstat().st_uid != os.geteuid():  # its name can be guessed: whoever made it could hold all locks for ever
        raise ConfigError(f"{folder} belongs to another user; delete it, or set TMPDIR to a folder of your own")
    held: dict[str, int] = {}
    try:
        # One job at a time, or two would take each other's last GPU.
        with os.fdopen(files.open_ours(folder / "lock"), "r+") as all_gpus:
            fcntl.flock(all_gpus, fcntl.LOCK_EX)
            for gpu in gpus:
                if len(held) < count and (descriptor := _try_lock(folder / f"gpu-{gpu}")) is not None:
                    held[gpu] = descriptor
        yield Devices(tuple(held), tuple(held.values())) if len(held) == count else None
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    descriptor = files.open_ours(path, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
