"""Inference latency and throughput on the CPU, measured round-robin over all networks; paper Table 4.

Run as ``python -m models.experiments.latency REQUEST`` in a separate process, so that no other effnet code uses the
cores and the number of threads can be set. Weights are random, and batch-norm statistics are those of the activations:
in a network with vanishing activations, denormal numbers would slow the CPU down.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conf.schema import Latency, Model
from infra import machine
from infra.errors import ConfigError
from models import paper
from models.networks.build import build_model
from models.networks.complexity import count_model
from models.networks.folding import fold_batch_norm
from models.results import LatencyResult, LatencyRow, LatencyTable, LatencyTiming, Speedup

CLASSES = 1000
WARM_UP = 2  # uncounted runs of each network
SETTLING_PX = 128  # image side for computing the statistics; any side works


def list_networks(options: Latency) -> dict[str, Model]:
    """Lists the networks of the pairs once, at the paper's size.

    Raises:
        ConfigError: Unknown network, or one with two resolutions.
    """
    by_name: dict[str, Model] = {}
    for pair in options.pairs:
        rival = [(pair.rival, pair.rival_px)] if pair.rival is not None else []
        for name, px in ((pair.ours, None), *rival):
            default_px = build_model(Model(name), 1, device="meta").resolution
            model = Model(name, resolution=(px or default_px) / default_px)
            if by_name.setdefault(name, model) != model:
                raise ConfigError(f"latency.pairs: {name} at two resolutions; give it one")
    return by_name


def settle_batch_norm(model: Model) -> nn.Module:
    """Builds the network with random weights and batch-norm statistics of its activations, in evaluation mode."""
    torch.manual_seed(0)
    network = build_model(model, CLASSES)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(2, 3, SETTLING_PX, SETTLING_PX))
    return network.eval()


def deployed(model: Model) -> nn.Module:
    """Builds the network as deployed: batch norm folded, channels_last."""
    network = fold_batch_norm(settle_batch_norm(model), torch.randn(1, 3, SETTLING_PX, SETTLING_PX))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def measure(
    models: dict[str, Model], *, threads: int, n: int, throughput_n: int, throughput_batch: int
) -> list[LatencyTiming]:
    """Times all networks round-robin, so that a slow phase of the machine affects all of them.

    Args:
        models: Networks by reported name.
        threads: Number of torch threads in the process.
        n: Number of counted runs of one image.
        throughput_n: Number of counted runs of one batch.
        throughput_batch: Images in that batch.
    """
    torch.set_num_threads(threads)
    sides = {name: build_model(model, CLASSES, device="meta").resolution for name, model in models.items()}
    networks = {name: deployed(model) for name, model in models.items()}
    with torch.inference_mode():
        single_s = time_in_turns({name: runner(networks[name], 1, side) for name, side in sides.items()}, n)
        batches = {name: runner(networks[name], throughput_batch, side) for name, side in sides.items()}
        batch_s = time_in_turns(batches, throughput_n)
    timings = []
    for name, model in models.items():
        low, median, high = np.percentile(np.array(single_s[name]) * 1000, [10, 50, 90]).tolist()
        params, multiply_adds = count_model(build_model(model, CLASSES, device="meta"), sides[name])
        timing = LatencyTiming(
            network=name,
            resolution=sides[name],
            params=params,
            multiply_adds=multiply_adds,
            batch1_ms=median,
            batch1_ms_low=low,
            batch1_ms_high=high,
            images_per_s=throughput_batch / float(np.median(batch_s[name])),
            throughput_batch=throughput_batch,
        )
        timings.append(timing)
    return timings


def time_in_turns(runs: Mapping[str, Callable[[], object]], n: int) -> dict[str, list[float]]:
    """Calls every function once per turn; returns the seconds of the ``n`` turns after warm-up, by name."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(WARM_UP + n):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def runner(network: nn.Module, batch: int, side: int) -> Callable[[], Tensor]:
    """Returns a function that runs the network on random channels_last images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
    return lambda: network(images)


def tabulate(options: Latency, timings: Mapping[int, Sequence[LatencyTiming]]) -> LatencyResult:
    """The measurements on one core, as in the paper, and on ``all_cores`` if the machine has more.

    Args:
        options: Options with the pairs.
        timings: Timings of all networks, by number of threads.
    """
    one, *more = [_table(options, threads, timings[threads]) for threads in sorted(timings)]
    return LatencyResult(**vars(one), all_cores=more[0] if more else None, batch_norm="folded", layout="channels_last")


def _table(options: Latency, threads: int, timings: Sequence[LatencyTiming]) -> LatencyTable:
    ms = {timing.network: timing.batch1_ms for timing in timings}
    rows = (
        LatencyRow(
            **vars(timing),
            paper_top1=paper.printed_top1(timing.network),
            paper_latency_s=paper.printed_latency_s(timing.network),
        )
        for timing in timings
    )
    speedups = (
        Speedup(
            ours=pair.ours,
            rival=pair.rival,
            measured=ms[pair.rival] / ms[pair.ours],
            paper=paper.printed_speedup(pair.ours, pair.rival),
        )
        for pair in options.pairs
        if pair.rival is not None
    )
    return LatencyTable(threads=threads, n=options.n, rows=tuple(rows), speedups=tuple(speedups))


def main(request: dict[str, Any]) -> dict[str, Any]:
    """``{"models": {name: Model fields}, n ...}`` -> times on one core and, if there are more, on all cores."""
    models = {name: Model(**fields) for name, fields in request.pop("models").items()}
    cores = machine.cores()
    return {
        str(threads): [asdict(row) for row in measure(models, threads=threads, **request)]
        for threads in sorted({1, cores})
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))))
