"""Tries the files of a registered network as another program would: ``python -m models.networks.trial FOLDER [OTHER]``.

It rebuilds the network from ``weights.safetensors`` and ``config.json``, writes it by torch.export (and as ONNX, if
the extra ``effnet[export]`` is installed), compares the logits of 64 fixed images with those of the network, and
measures the latency of one image. It prints one JSON object: ``latency_ms``, the shortest time; ``waited``, the share
of that measurement in which other work had the cores; ``size_mb`` of the weights; ``onnx``, whether it was tried as
ONNX; and ``latency_ratio`` to the network in the folder OTHER, measured in turns, or ``other_error`` if that one cannot
be loaded. Or else ``error`` and its exit ``code``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infra.errors import ConfigError, EffnetError, first_line
from models.networks import export, formats

THREADS = Path("/proc/self/task")
LATENCY_RUNS = 20
COMPARISONS = 3
BUDGET_S = 30.0  # of one measurement, after three runs that count


def main(folder: Path, other: Path | None = None) -> dict[str, Any]:
    """Tries the network in a folder; writes the exported files there.

    Args:
        folder: The folder with ``weights.safetensors`` and ``config.json``.
        other: A folder with those of a network whose latency is compared.
    """
    try:
        module, config = _load(folder)
        program = formats.capture(module, config)
        formats.write_pt2(module, program, config, folder / "trial.pt2")
        has_onnx = _has_onnx()
        if has_onnx:
            formats.write_onnx(module, program, config, folder / "trial.onnx")
    except EffnetError as error:
        return {"error": str(error), "code": error.exit_code}
    ours = (module, _image(config))
    before = read_scheduler()
    latency_s = min(measure_in_turns([ours])[0])
    trial = {
        "latency_ms": 1000 * latency_s,
        "waited": share_waited(before, read_scheduler()),
        "size_mb": (folder / "weights.safetensors").stat().st_size / 1e6,
        "onnx": has_onnx,
    }
    if other is None:
        return trial
    try:
        module, config = _load(other)
        theirs = (module, _image(config))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with them, it is no fault of the network that is tried
        return trial | {"other_error": first_line(error)}
    return trial | {"latency_ratio": compare_latency(ours, theirs)}


def read_scheduler() -> tuple[int, int]:
    """Returns the nanoseconds that the threads of this process have run, and waited for a core; zeros if not known.

    Source: Linux, Documentation/scheduler/sched-stats.rst, ``/proc/<pid>/schedstat``.
    """
    run_ns = wait_ns = 0
    for file in THREADS.glob("*/schedstat"):
        try:
            run, wait, _ = file.read_text(encoding="utf-8").split()
        except (OSError, ValueError):  # the thread has ended, or the kernel does not say it
            continue
        run_ns, wait_ns = run_ns + int(run), wait_ns + int(wait)
    return run_ns, wait_ns


def share_waited(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Returns the share of the time between two readings of the scheduler that threads waited for a core."""
    run_ns, wait_ns = (max(0, new - old) for new, old in zip(after, before, strict=True))
    return wait_ns / (run_ns + wait_ns) if run_ns + wait_ns else 0.0


def compare_latency(ours: tuple[nn.Module, Tensor], theirs: tuple[nn.Module, Tensor]) -> float:
    """Returns how many times as long an image takes with one network as with another, on a machine that may be busy.

    Other work only adds to a time, so the shortest of many counts, on one thread, so that it waits for no other.
    Of three comparisons the lowest ratio counts: what is slower is so in each.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [measure_in_turns([ours, theirs]) for _ in range(COMPARISONS)]
    finally:
        torch.set_num_threads(threads)
    return min(min(ours_s) / min(theirs_s) for ours_s, theirs_s in rounds)


def measure_in_turns(networks: Sequence[tuple[nn.Module, Tensor]]) -> list[list[float]]:
    """Returns the seconds that the images of each network took, in turns, up to ``LATENCY_RUNS`` times.

    What slows the machine down for a while then slows all networks down. Large networks are run fewer times.
    """
    rounds: list[list[float]] = []
    began = time.monotonic()
    with torch.inference_mode():
        while len(rounds) < LATENCY_RUNS + 3 and (len(rounds) < 6 or time.monotonic() - began < BUDGET_S):
            rounds.append([_time(module, image) for module, image in networks])
    return [list(times) for times in zip(*rounds[3:], strict=True)]  # the first ones allocate


def _time(module: nn.Module, image: Tensor) -> float:
    began = time.perf_counter()
    module(image)
    return time.perf_counter() - began


def _load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return export.serving_module(export.load_network(folder / "weights.safetensors", config)), config


def _image(config: dict[str, Any]) -> Tensor:
    return torch.from_numpy(export.example(int(config["input"]["resolution"])))[:1]


def _has_onnx() -> bool:
    try:
        formats.check_onnx()
    except ConfigError:  # not installed
        return False
    return True


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*map(Path, sys.argv[1:3]))))
