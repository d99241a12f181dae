"""The process group of one job: this process's rank, and the few collectives used between ranks."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from infra.errors import ConfigError
from infra.launch.command import GPUS_PER_NODE, RENDEZVOUS_TOKEN, ROUND

# A last resort: the limits in models/training/supervision/watchdog.py are shorter and report what hangs.
COLLECTIVE_TIMEOUT = timedelta(minutes=60)
STORE_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """Position of this process in its job."""

    rank: int
    world_size: int
    device: torch.device
    stages: int = 1  # consecutive ranks that share the computation of one network; see pipeline.py

    @property
    def replica(self) -> int:
        """Index of the network copy that this rank computes, fully or partly; determines its part of a batch."""
        return self.rank // self.stages

    @property
    def replicas(self) -> int:
        """Number of copies of the network."""
        return self.world_size // self.stages

    @property
    def stage(self) -> int:
        """Index of the pipeline stage that this rank computes."""
        return self.rank % self.stages

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only rank that writes results and status."""
        return self.rank == 0


def join() -> Ranks:
    """Joins the group that torchrun describes in the environment: NCCL on GPUs, gloo elsewhere.

    Raises:
        ConfigError: The job requested GPUs and this machine has none, or fewer than processes.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1:
        # gloo beside NCCL: small host messages (positions, ledgers) need no GPU.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=job_store("group"), rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT
        )
    return Ranks(rank, world_size, device)


def _device() -> torch.device:
    requested, processes = os.environ.get(GPUS_PER_NODE), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not torch.cuda.is_available():
        if requested is None:
            return torch.device("cpu")
        cause = "finds none" if torch.version.cuda else "is the build for CPUs"
        raise ConfigError(f"launch.gpus_per_node={requested}, but torch {cause} on {socket.gethostname()}")
    if processes > torch.cuda.device_count():
        raise ConfigError(
            f"launch.nproc_per_node={processes} processes need as many GPUs; {socket.gethostname()} has "
            f"{torch.cuda.device_count()} that this job may use (CUDA_VISIBLE_DEVICES)"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def in_stages(ranks: Ranks, stages: int) -> Ranks:
    """Groups the ranks into pipelines of ``stages`` consecutive ranks.

    Raises:
        ConfigError: ``stages`` does not divide the number of ranks.
    """
    if ranks.world_size % stages:
        raise ConfigError(
            f"runtime.pipeline_stages={stages} does not divide the {ranks.world_size} processes "
            "(launch.nproc_per_node, on all nodes)"
        )
    return replace(ranks, stages=stages)


def job_store(name: str) -> Store:
    """Opens a separate connection to the agent's key-value store, under a prefix of this name and attempt.

    The store outlives a restart of the ranks; without the prefix new ranks would read addresses of dead ones.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    agent = TCPStore(address, port, None, is_master=False, timeout=STORE_TIMEOUT)
    token = os.environ.get(RENDEZVOUS_TOKEN, "")
    return PrefixStore(f"ranks/{token}/{name}/attempt_{restart_count()}", agent)


def restart_count() -> int:
    """Returns how often torchrun has restarted the ranks of this job; the same number on all machines."""
    return int(os.environ.get(ROUND) or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def leave() -> None:
    """Leaves the process group, if any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sums a tensor over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Returns whether the flag is set on any rank; the same answer on all ranks."""
    return bool(sum_over_ranks(torch.tensor(int(flag))).item())


def wait_for_all() -> None:
    """Returns when every rank has reached this call; a CPU tensor, so that NCCL is not involved."""
    sum_over_ranks(torch.zeros(1))


def broadcast(tensors: list[Tensor]) -> None:
    """Copies rank 0's values to every rank, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def broadcast_object(value: Any) -> Any:
    """Returns rank 0's value (plain data) on every rank."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
    return values[0]


def gather_objects(value: Any) -> list[Any]:
    """Returns the values of all ranks in order on rank 0, and an empty list elsewhere."""
    if not dist.is_initialized():
        return [value]
    first = dist.get_rank() == 0
    values: list[Any] | None = [None] * dist.get_world_size() if first else None
    dist.gather_object(value, values)
    return values or []


def is_peer_failure(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank has ended; that rank reports the cause."""
    text = str(error)
    return isinstance(error, dist.DistError) or "gloo/transport" in text or "Connection closed by peer" in text


def all_equal(digest: int) -> bool:
    """Returns whether a 63-bit number is equal on every rank; the same answer on all ranks."""
    if not dist.is_initialized():
        return True
    extremes = torch.tensor([digest, -digest])
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    return int(extremes[0]) == -int(extremes[1])
