"""The process group of one job: who am I, and the few collectives beyond DDP's own."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

COLLECTIVE_TIMEOUT = timedelta(minutes=10)  # a rank that is gone must not hang the others for longer


@dataclass(frozen=True)
class Ranks:
    """This process within its job."""

    rank: int
    world_size: int
    device: torch.device

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
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=_rendezvous(world_size), rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT
        )
    return Ranks(rank, world_size, device)


def _rendezvous(world_size: int) -> Store:
    """The agent's store, under a prefix of this attempt.

    The store outlives a restart of the ranks; without the prefix the new ranks read the dead ones' addresses.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    agent = TCPStore(address, port, world_size, is_master=False, timeout=COLLECTIVE_TIMEOUT)
    return PrefixStore(f"attempt_{restart_count()}", agent)


def restart_count() -> int:
    """How often torchrun has restarted the ranks of this job."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def leave() -> None:
    """Leaves the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sums a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def average_over_ranks(tensors: list[Tensor]) -> None:
    """Averages tensors over all ranks, in place, in one message."""
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [t.numel() for t in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def running_statistics(network: nn.Module) -> list[str]:
    """Names of the BN means and variances in the network's state."""
    return [name for name, b in network.named_buffers() if b.is_floating_point()]


def _die_with_parent() -> None:
    """Asks Linux to kill this rank when torchrun's agent is gone, however it went.

    The agent starts ranks in sessions of their own, so no process group covers both.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
