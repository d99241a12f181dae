"""Batch norm over two real processes is batch norm over their images together."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from models.training.sync_norm import SyncBatchNorm2d, synchronize

SHAPE, RANKS = (6, 5, 4, 4), 2


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5, momentum=0.1), nn.SiLU())
    nn.init.uniform_(layers[1].weight)  # type: ignore[arg-type]
    nn.init.normal_(layers[1].bias)  # type: ignore[arg-type]
    return layers.double()


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, target = (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    return 3 * x + 100, target  # a mean that is large beside the deviation


def outcome(layers: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What a rank has after a step on its images: the sum of losses over the ranks is the loss of all images."""
    x = x.clone().requires_grad_()
    out = layers(x)
    ((out - target).square().sum() / SHAPE[0]).backward()
    gradients = {f"gradient of {name}": p.grad for name, p in layers.named_parameters()}
    return {"out": out.detach(), "x": x.grad, **gradients, **dict(layers.named_buffers())}  # type: ignore[dict-item]


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    part = slice(0, 2) if rank == 0 else slice(2, 6)  # unequal parts
    x, target = images()
    layers = network()
    synchronize(layers, torch.device("cpu"))
    torch.save(outcome(layers, x[part], target[part]), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_compute_what_one_computes_on_all_images(tmp_path: Path) -> None:
    expected = outcome(network(), *images())
    multiprocessing.set_forkserver_preload([__name__])  # one import of torch for both
    mp.start_processes(run_rank, (str(tmp_path),), RANKS, start_method="forkserver")  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS))
    for key in ("out", "x"):
        torch.testing.assert_close(torch.cat([first[key], second[key]]), expected[key])
    for key in (key for key in expected if key.startswith("gradient")):
        torch.testing.assert_close(first[key] + second[key], expected[key])  # ranks sum their gradients
    for key in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        torch.testing.assert_close(first[key], expected[key])
        assert torch.equal(first[key], second[key])


def test_in_evaluation_the_running_statistics_count_and_nothing_is_exchanged() -> None:
    plain, synchronized = network().eval(), network().eval()
    synchronize(synchronized, torch.device("cpu"))
    assert isinstance(synchronized[1], SyncBatchNorm2d)  # type: ignore[index]
    assert not dist.is_initialized()
    assert torch.equal(plain(images()[0]), synchronized(images()[0]))
