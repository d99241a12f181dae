"""Tries the files of a registered network as another program would: ``python -m models.networks.trial FOLDER``.

It rebuilds the network from ``weights.safetensors`` and ``config.json``, writes it by torch.export (and as ONNX, if
the extra ``effnet[export]`` is installed), compares the logits of 64 fixed images with those of the network, and
measures the latency of one image. It prints one JSON object: ``latency_ms``, or ``error`` and its exit ``code``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infra.errors import ConfigError, EffnetError
from models.networks import export, formats

LATENCY_RUNS = 20


def main(folder: Path) -> dict[str, Any]:
    """Tries the network in a folder; writes the exported files there."""
    try:
        config = json.loads((folder / "config.json").read_text())
        module = export.serving_module(export.load_network(folder / "weights.safetensors", config))
        program = formats.capture(module, config)
        formats.write_pt2(module, program, config, folder / "trial.pt2")
        try:
            formats.check_onnx()
        except ConfigError:  # not installed
            pass
        else:
            formats.write_onnx(module, program, config, folder / "trial.onnx")
        image = torch.from_numpy(export.example(int(config["input"]["resolution"])))[:1]
        return {"latency_ms": 1000 * _measure_latency(module, image)}
    except EffnetError as error:
        return {"error": str(error), "code": error.exit_code}


def _measure_latency(module: nn.Module, image: Tensor) -> float:
    """Returns the median of the seconds that one image takes."""
    times = []
    with torch.inference_mode():
        for _ in range(LATENCY_RUNS + 3):
            began = time.perf_counter()
            module(image)
            times.append(time.perf_counter() - began)
    return sorted(times[3:])[LATENCY_RUNS // 2]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
