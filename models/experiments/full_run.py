"""The family trained on ImageNet by the paper's recipe: speed of one GPU, cost, and the accuracy that is accepted.

Sources: ``python -m benchmarks.step`` on one H200 (benchmarks/README.md) for the measured speeds; Table 2 for the
paper's accuracies. ``docs/full-reproduction.md`` shows these rows, and a test keeps both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conf import schema
from infra.errors import ConfigError

GPU = "H200"


@dataclass(frozen=True)
class FullRun:
    """One variant at the paper's size and recipe.

    Attributes:
        images_per_s: Training speed of one H200 in bfloat16, not compiled.
        measured: Whether the speed was measured; otherwise it is interpolated between B0 and B4 in the logarithm of
            the multiply-adds, and beyond B4 limited by 4.2e12 multiply-adds per second.
        margin: Points below the paper's top-1 that are accepted. A run's seeds differ by about 0.1 points (NVIDIA's
            B0: 77.42 +- 0.11), 50,000 images have a standard error of 0.19, and one user of the official code
            missed B4 by 0.4 (tensorflow/tpu, issue 546).
        seeds: Runs whose mean is compared.
    """

    images_per_s: float
    measured: bool
    margin: float
    seeds: int = 1


FULL_RUNS: Mapping[str, FullRun] = {
    "efficientnet_b0": FullRun(4_930, True, 0.2, seeds=3),
    "efficientnet_b1": FullRun(3_140, False, 0.3),
    "efficientnet_b2": FullRun(2_350, False, 0.3),
    "efficientnet_b3": FullRun(1_460, False, 0.4),
    "efficientnet_b4": FullRun(736, True, 0.4),
    "efficientnet_b5": FullRun(380, False, 0.4),
    "efficientnet_b6": FullRun(220, False, 0.4),
    "efficientnet_b7": FullRun(110, False, 0.4),
}


def check_request(config: schema.Config) -> None:
    """Raises if the gate cannot be run as configured.

    Raises:
        ConfigError: The data set is not ImageNet, or weights are given without it.
    """
    if config.data.source != "imagenet":
        raise ConfigError(
            f"the gate checks the training on ImageNet, and the data are {config.data.name}: "
            "effnet gate profile=paper data.path=FOLDER"
        )
    if config.gate.weights and config.data.path is None:
        raise ConfigError("gate.weights are evaluated on ImageNet: give its folder, data.path=FOLDER")
