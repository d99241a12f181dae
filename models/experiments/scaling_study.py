"""The paper's scaling experiments: Tables 3 and 7 as printed, and the settings of Figures 3, 4 and 8.

The figures plot accuracies without printing them, so only their settings are listed here; the points of Figure 8 at
four times B0's cost are those of Table 7. Source: arXiv 1905.11946v5, as in :mod:`models.paper`. What the paper calls
FLOPS are multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("baseline", "depth", "width", "resolution", "compound")


@dataclass(frozen=True)
class PaperScalingRow:
    """One network scaled by one method.

    Attributes:
        base: The printed name of the network that is scaled.
        method: One of :data:`METHODS`.
        depth: Multiplier; None where the paper does not print it, as ``width`` and ``resolution``.
        flops_b: 1e9 multiply-adds, as printed.
        top1: Percent on ImageNet, as printed.
        counted_b: 1e9 multiply-adds counted for exactly this setting; None where the setting is not printed.
    """

    base: str
    method: str
    depth: float | None
    width: float | None
    resolution: float | None
    flops_b: float
    top1: float
    counted_b: float | None


# Counted with ceil on repeats, channels rounded to 8, input 224 times the multiplier; MobileNetV1's compound row at
# 288 px. ResNet-50 is the one with the stride on the 3x3 convolution. Its printed depth and width rows, 16.2 and
# 14.7 B, count 14.6 and 16.1 B: they look swapped.
_V1, _V2, _R50, _B0 = "MobileNetV1", "MobileNetV2", "ResNet-50", "EfficientNet-B0"
TABLE3: tuple[PaperScalingRow, ...] = (
    PaperScalingRow(_V1, "baseline", 1, 1, 1, 0.6, 70.6, 0.569),
    PaperScalingRow(_V1, "width", 1, 2, 1, 2.2, 74.2, 2.216),
    PaperScalingRow(_V1, "resolution", 1, 1, 2, 2.2, 72.7, 2.272),
    PaperScalingRow(_V1, "compound", 1.4, 1.2, 1.3, 2.3, 75.6, 2.243),
    PaperScalingRow(_V2, "baseline", 1, 1, 1, 0.3, 72.0, 0.301),
    PaperScalingRow(_V2, "depth", 4, 1, 1, 1.2, 76.8, 1.220),
    PaperScalingRow(_V2, "width", 1, 2, 1, 1.1, 76.4, 1.137),
    PaperScalingRow(_V2, "resolution", 1, 1, 2, 1.2, 74.8, 1.199),
    PaperScalingRow(_V2, "compound", None, None, None, 1.3, 77.4, None),
    PaperScalingRow(_R50, "baseline", 1, 1, 1, 4.1, 76.0, 4.089),
    PaperScalingRow(_R50, "depth", 4, 1, 1, 16.2, 78.1, 14.571),
    PaperScalingRow(_R50, "width", 1, 2, 1, 14.7, 77.7, 16.117),
    PaperScalingRow(_R50, "resolution", 1, 1, 2, 16.4, 77.5, 16.351),
    PaperScalingRow(_R50, "compound", None, None, None, 16.7, 78.8, None),
)
# With d = 4, w = 2, r = 2 exactly as printed, the single-dimension rows count 13 to 19 % less than printed. The
# compound row is EfficientNet-B3 (1.827 B at 300 px).
TABLE7: tuple[PaperScalingRow, ...] = (
    PaperScalingRow(_B0, "baseline", 1, 1, 1, 0.4, 77.3, 0.386),
    PaperScalingRow(_B0, "depth", 4, 1, 1, 1.8, 79.0, 1.575),
    PaperScalingRow(_B0, "width", 1, 2, 1, 1.8, 78.9, 1.450),
    PaperScalingRow(_B0, "resolution", 1, 1, 2, 1.9, 79.1, 1.538),
    PaperScalingRow(_B0, "compound", 1.4, 1.2, 1.3, 1.8, 81.1, 1.827),
)

# Figure 3: B0 scaled in one dimension; the labels of its points and their counted multiply-adds (1e9).
FIGURE3: dict[str, tuple[tuple[float, float], ...]] = {
    "width": ((1.0, 0.386), (1.4, 0.744), (1.8, 1.176), (2.6, 2.391), (3.8, 5.060), (5.0, 8.712)),
    "depth": ((1.0, 0.386), (2.0, 0.782), (3.0, 1.179), (4.0, 1.575), (6.0, 2.368), (8.0, 3.161)),
    "resolution": ((1.0, 0.386), (1.3, 0.718), (1.5, 0.893), (1.7, 1.129), (1.9, 1.458), (2.2, 1.923), (2.5, 2.447)),
}
# Figure 4: B0's width is scaled at these (depth, resolution). The text of section 3.3 gives r = 2.0 for the last.
FIGURE4: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.0, 1.3), (2.0, 1.0), (2.0, 1.3))
