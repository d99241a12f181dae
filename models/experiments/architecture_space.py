"""Search space of B0, the search objective, and the Pareto front; stdlib only.

For each of stages 2 to 8 of Table 1 a search chooses the operation, kernel, squeeze-and-excitation, residual,
channels and layers; strides, stem and head are fixed. Channels are 0.75, 1 or 1.25 times those of MobileNetV2's stage,
and layers may differ by one from its number. B0's channels are included where no multiple of MobileNetV2's yields them
(112 and 192). MnasNet's pooled residual is excluded: the official notation cannot express it.

Source: MnasNet (Tan et al., 2019) section 4.1; objective: the paper, section 4; facts of MobileNetV2: its Table 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from models.networks.efficientnet.compound_scaling import round_channels
from models.networks.efficientnet.variants import B0_STAGES, B0_STEM, Stage

Choice = str | int | float
Point = Mapping[str, Choice]

FIRST = 2  # number of the first searched stage in Table 1
OPERATIONS = {"conv": (1, True), "dconv": (1, False), "mbconv3": (3, False), "mbconv6": (6, False)}  # expansion, fused
KERNELS = (3, 5)
SE_RATIOS = (0.0, 0.25)
SKIPS = ("identity", "none")
MULTIPLES = (0.75, 1.0, 1.25)
MOBILENET_V2 = ((16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1))  # channels, layers


def choices() -> dict[str, tuple[Choice, ...]]:
    """Options of every decision, by name: ``stage2_op``, ``stage2_kernel`` .. ``stage8_layers``."""
    options: dict[str, tuple[Choice, ...]] = {}
    for number, ((channels, layers), stage) in enumerate(zip(MOBILENET_V2, B0_STAGES, strict=True), start=FIRST):
        widths = {round_channels(channels, multiple) for multiple in MULTIPLES} | {stage.channels}
        options |= {
            f"stage{number}_op": tuple(OPERATIONS),
            f"stage{number}_kernel": KERNELS,
            f"stage{number}_se": SE_RATIOS,
            f"stage{number}_skip": SKIPS,
            f"stage{number}_channels": tuple(sorted(widths)),
            f"stage{number}_layers": tuple(n for n in (layers - 1, layers, layers + 1) if n > 0),
        }
    return options


def size() -> int:
    """Number of points in the space."""
    return math.prod(len(options) for options in choices().values())


def stages(point: Point) -> tuple[Stage, ...]:
    """Returns the stage table of a point.

    A stage in which no block can have a residual is marked as having one, so that equal networks compare equal.
    """
    table: list[Stage] = []
    channels_in = B0_STEM
    for number, stage in enumerate(B0_STAGES, start=FIRST):
        expand_ratio, fused = OPERATIONS[str(point[f"stage{number}_op"])]
        channels, layers = int(point[f"stage{number}_channels"]), int(point[f"stage{number}_layers"])
        can_skip = layers > 1 or (stage.stride == 1 and channels == channels_in)
        table.append(
            Stage(
                expand_ratio,
                int(point[f"stage{number}_kernel"]),
                stage.stride,
                channels,
                layers,
                float(point[f"stage{number}_se"]),
                skip=not can_skip or point[f"stage{number}_skip"] == "identity",
                fused=fused,
            )
        )
        channels_in = channels
    return tuple(table)


def point(table: Sequence[Stage]) -> dict[str, Choice]:
    """Returns the options that yield a stage table of the space."""
    names = {operation: name for name, operation in OPERATIONS.items()}
    options: dict[str, Choice] = {}
    for number, stage in enumerate(table, start=FIRST):
        options |= {
            f"stage{number}_op": names[stage.expand_ratio, stage.fused],
            f"stage{number}_kernel": stage.kernel,
            f"stage{number}_se": stage.se_ratio,
            f"stage{number}_skip": "identity" if stage.skip else "none",
            f"stage{number}_channels": stage.channels,
            f"stage{number}_layers": stage.repeats,
        }
    return options


def reward(accuracy: float, multiply_adds: int, target: float, exponent: float) -> float:
    """``accuracy * (multiply_adds / target) ** exponent``, in the accuracy's unit.

    Source: paper section 4, with exponent -0.07 and target 400 M: doubling the cost must gain 5 % relative accuracy.
    """
    return accuracy * math.pow(multiply_adds / target, exponent)


def pareto(points: Sequence[tuple[float, int]]) -> list[bool]:
    """Marks the (accuracy, multiply_adds) not dominated by another: at least as good in both, better in one."""
    return [
        not any(a >= accuracy and m <= cost and (a, m) != (accuracy, cost) for a, m in points)
        for accuracy, cost in points
    ]
