"""The process group of one job: who am I, and the few messages between ranks."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from infra.errors import ConfigError
from infra.launch.command import RENDEZVOUS_TOKEN, ROUND

# Only the last resort: the limits of models/training/supervision/watchdog.py are shorter and say what hangs.
COLLECTIVE_TIMEOUT = timedelta(minutes=60)
STORE_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """This process within its job."""

    rank: int
    world_size: int
    device: torch.device
    stages: int = 1  # ranks in a row that share one network's work, see pipeline.py

    @property
    def replica(self) -> int:
        """Which copy of the network this rank computes on, or on a part of: says what it reads of a batch."""
        return self.rank // self.stages

    @property
    def replicas(self) -> int:
        """Copies of the network at work."""
        return self.world_size // self.stages

    @property
    def stage(self) -> int:
        """Which part of the network this rank computes."""
        return self.rank % self.stages

    @property
    def is_first(self) -> bool:
        """Rank 0 alone talks to the outside."""
        return self.rank == 0


def join() -> Ranks:
    """Joins the group that torchrun describes in the environment: NCCL on GPUs, gloo elsewhere."""
    _die_with_parent()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world_size > 1:
        # gloo beside NCCL: small host messages (positions, ledgers) need no GPU.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=job_store("group"), rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT
        )
    return Ranks(rank, world_size, device)


def in_stages(ranks: Ranks, stages: int) -> Ranks:
    """These ranks, ``stages`` of them in a row to one network.

    Raises:
        ConfigError: they cannot be shared out evenly.
    """
    if ranks.world_size % stages:
        raise ConfigError(
            f"runtime.pipeline_stages={stages} does not divide the {ranks.world_size} processes "
            "(launch.nproc_per_node, on all nodes)"
        )
    return replace(ranks, stages=stages)


def job_store(name: str) -> Store:
    """A connection of its own to the agent's key-value store, under a prefix of this name and attempt.

    The store outlives a restart of the ranks; without the prefix the new ranks read the dead ones' addresses.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    agent = TCPStore(address, port, None, is_master=False, timeout=STORE_TIMEOUT)
    token = os.environ.get(RENDEZVOUS_TOKEN, "")
    return PrefixStore(f"ranks/{token}/{name}/attempt_{restart_count()}", agent)


def restart_count() -> int:
    """How often torchrun has restarted the ranks of this job; the same number on all machines."""
    return int(os.environ.get(ROUND) or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def leave() -> None:
    """Leaves the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sums a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank; the same answer on all."""
    return bool(sum_over_ranks(torch.tensor(int(flag))).item())


def wait_for_all() -> None:
    """Returns when every rank has come here; by way of the CPU, which keeps NCCL out of it."""
    sum_over_ranks(torch.zeros(1))


def broadcast(tensors: list[Tensor]) -> None:
    """Gives every rank rank 0's values, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def broadcast_object(value: Any) -> Any:
    """Rank 0's value (plain data), on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    return box[0]


def gather_objects(value: Any) -> list[Any]:
    """The values of all ranks, in order, on rank 0; nothing elsewhere."""
    if not dist.is_initialized():
        return [value]
    first = dist.get_rank() == 0
    box: list[Any] | None = [None] * dist.get_world_size() if first else None
    dist.gather_object(value, box)
    return box or []


def is_peer_failure(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank has ended, which is that rank's story to tell."""
    text = str(error)
    return isinstance(error, dist.DistError) or "gloo/transport" in text or "Connection closed by peer" in text


def all_equal(digest: int) -> bool:
    """Whether a number of 63 bits is the same on every rank; the same answer on all."""
    if not dist.is_initialized():
        return True
    extremes = torch.tensor([digest, -digest])
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    return int(extremes[0]) == -int(extremes[1])


def _die_with_parent() -> None:
    """Asks Linux to kill this rank when torchrun's agent is gone, however it went.

    The agent starts ranks in sessions of their own, so no process group covers both.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() == 1:  # it went before we could ask
            os.kill(os.getpid(), signal.SIGKILL)
