"""Tries the files of a registered network as another program would: ``python -m models.networks.trial FOLDER [OTHER]``.

It rebuilds the network from ``weights.safetensors`` and ``config.json``, writes it by torch.export (and as ONNX, if
the extra ``effnet[export]`` is installed), compares the logits of 64 fixed images with those of the network, and
measures the latency of one image. It prints one JSON object: ``latency_ms``, ``size_mb`` of the weights, ``onnx``
(whether it was tried as ONNX) and ``latency_ratio`` to the network in the folder OTHER, measured in turns; or ``error``
and its exit ``code``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from infra.errors import ConfigError, EffnetError
from models.networks import export, formats

LATENCY_RUNS = 20


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
        compared = [(module, _image(config))]
        if other is not None:
            theirs, their_config = _load(other)
            compared.append((theirs, _image(their_config)))
    except EffnetError as error:
        return {"error": str(error), "code": error.exit_code}
    times = measure_in_turns(compared)
    trial = {
        "latency_ms": 1000 * median(times[0]),
        "size_mb": (folder / "weights.safetensors").stat().st_size / 1e6,
        "onnx": has_onnx,
    }
    if other is not None:
        trial["latency_ratio"] = median(ours / theirs for ours, theirs in zip(*times, strict=True))
    return trial


def measure_in_turns(networks: Sequence[tuple[nn.Module, Tensor]]) -> list[list[float]]:
    """Returns the seconds that the images of each network took, ``LATENCY_RUNS`` times in turns.

    What slows the machine down for a while then slows all networks down.
    """
    rounds = []
    with torch.inference_mode():
        for _ in range(LATENCY_RUNS + 3):  # the first ones allocate
            rounds.append([_time(module, image) for module, image in networks])
    return [list(times) for times in zip(*rounds[3:], strict=True)]


def _time(module: nn.Module, image: Tensor) -> float:
    began = time.perf_counter()
    module(image)
    return time.perf_counter() - began


def _load(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    config = json.loads((folder / "config.json").read_text())
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
