"""The least that a torchrun job can do before its first step: import torch, join, one step under DDP on random numbers.

``torchrun -m benchmarks.rivals.bare_torchrun FILE``; rank 0 writes the unix time of its first step there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    """One step."""
    dist.init_process_group("gloo")
    network = DistributedDataParallel(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(network(torch.randn(32, 3, 32, 32)), torch.zeros(32, dtype=torch.long))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(repr(time.time()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
