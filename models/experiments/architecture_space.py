"""The space that B0 was found in, the objective, and the Pareto front; stdlib only.

For each of the stages 2 to 8 of Table 1 a search chooses the operation, kernel, squeeze-and-excitation, residual,
channels and layers; strides, stem and head stay. Channels are 0.75, 1 or 1.25 times those of MobileNetV2's stage, and
layers one more, one less or as many. B0's own channels are in it too where no multiple of MobileNetV2's gives them (112
and 192). Of MnasNet's residuals the pooled one is left out: the official notation has no word for it.

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
    """What each decision may be, by name: ``stage2_op``, ``stage2_kernel`` .. ``stage8_layers``."""
    found: dict[str, tuple[Choice, ...]] = {}
    for number, ((channels, layers), ours) in enumerate(zip(MOBILENET_V2, B0_STAGES, strict=True), start=FIRST):
        widths = {round_channels(channels, multiple) for multiple in MULTIPLES} | {ours.channels}
        found |= {
            f"stage{number}_op": tuple(OPERATIONS),
            f"stage{number}_kernel": KERNELS,
            f"stage{number}_se": SE_RATIOS,
            f"stage{number}_skip": SKIPS,
            f"stage{number}_channels": tuple(sorted(widths)),
            f"stage{number}_layers": tuple(n for n in (layers - 1, layers, layers + 1) if n > 0),
        }
    return found


def size() -> int:
    """How many points the space has."""
    return math.prod(len(options) for options in choices().values())


def stages(point: Point) -> tuple[Stage, ...]:
    """The table of blocks that a point stands for.

    A stage without any block that could have a residual is written as one with it, so that equal networks are equal.
    """
    table: list[Stage] = []
    channels_in = B0_STEM
    for number, ours in enumerate(B0_STAGES, start=FIRST):
        expand_ratio, fused = OPERATIONS[str(point[f"stage{number}_op"])]
        channels, layers = int(point[f"stage{number}_channels"]), int(point[f"stage{number}_layers"])
        possible = layers > 1 or (ours.stride == 1 and channels == channels_in)
        table.append(
            Stage(
                expand_ratio,
                int(point[f"stage{number}_kernel"]),
                ours.stride,
                channels,
                layers,
                float(point[f"stage{number}_se"]),
                skip=not possible or point[f"stage{number}_skip"] == "identity",
                fused=fused,
            )
        )
        channels_in = channels
    return tuple(table)


def point(table: Sequence[Stage]) -> dict[str, Choice]:
    """The choices that lead to a table of the space."""
    names = {what: name for name, what in OPERATIONS.items()}
    found: dict[str, Choice] = {}
    for number, stage in enumerate(table, start=FIRST):
        found |= {
            f"stage{number}_op": names[stage.expand_ratio, stage.fused],
            f"stage{number}_kernel": stage.kernel,
            f"stage{number}_se": stage.se_ratio,
            f"stage{number}_skip": "identity" if stage.skip else "none",
            f"stage{number}_channels": stage.channels,
            f"stage{number}_layers": stage.repeats,
        }
    return found


def reward(accuracy: float, multiply_adds: int, target: float, exponent: float) -> float:
    """``accuracy * (multiply_adds / target) ** exponent``, in the accuracy's unit.

    Source: paper section 4, with exponent -0.07 and target 400 M: twice the cost must buy 5 % more accuracy.
    """
    return accuracy * math.pow(multiply_adds / target, exponent)


def pareto(points: Sequence[tuple[float, int]]) -> list[bool]:
    """Which of (accuracy, multiply_adds) no other is better than: at least as good in both, better in one."""
    return [
        not any(a >= accuracy and m <= cost and (a, m) != (accuracy, cost) for a, m in points)
        for accuracy, cost in points
    ]
