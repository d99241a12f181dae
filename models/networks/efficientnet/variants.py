"""Table 1 of the paper, and the variants B0..B8, L2 and Lite0..Lite4 as scaling coefficients.

Source: paper Table 1; strides, expansion, SE and coefficients from the official
efficientnet_builder.py (``_DEFAULT_BLOCKS_ARGS``, ``efficientnet_params``) and lite/efficientnet_lite_builder.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.networks.efficientnet.compound_scaling import round_channels, round_repeats


@dataclass(frozen=True)
class Stage:
    """One row of Table 1: a run of MBConv blocks, of which only the first is strided."""

    expand_ratio: int
    kernel: int
    stride: int
    channels: int
    repeats: int
    se_ratio: float = 0.25  # squeeze-and-excitation width / block input channels; 0: no squeeze-and-excitation
    skip: bool = True  # residual connection, where stride and channels allow it
    fused: bool = False  # one k x k convolution replaces expansion and depthwise convolution


# fmt: off
B0_STAGES = (
    #     expand kernel stride channels repeats     stage, input px in B0
    Stage(1,     3,     1,     16,      1),       # 2, 112
    Stage(6,     3,     2,     24,      2),       # 3, 112
    Stage(6,     5,     2,     40,      2),       # 4, 56
    Stage(6,     3,     2,     80,      3),       # 5, 28
    Stage(6,     5,     1,     112,     3),       # 6, 14
    Stage(6,     5,     2,     192,     4),       # 7, 14
    Stage(6,     3,     1,     320,     1),       # 8, 7
)
# fmt: on
B0_STEM = 32  # stage 1: Conv3x3, stride 2
B0_HEAD = 1280  # stage 9: Conv1x1, pooling, classifier


@dataclass(frozen=True)
class Variant:
    """Scaling coefficients of one variant, relative to B0."""

    width: float
    depth: float
    resolution: int
    dropout: float


FAMILY = {
    "efficientnet_b0": Variant(1.0, 1.0, 224, 0.2),
    "efficientnet_b1": Variant(1.0, 1.1, 240, 0.2),
    "efficientnet_b2": Variant(1.1, 1.2, 260, 0.3),
    "efficientnet_b3": Variant(1.2, 1.4, 300, 0.3),
    "efficientnet_b4": Variant(1.4, 1.8, 380, 0.4),
    "efficientnet_b5": Variant(1.6, 2.2, 456, 0.4),
    "efficientnet_b6": Variant(1.8, 2.6, 528, 0.5),
    "efficientnet_b7": Variant(2.0, 3.1, 600, 0.5),
    "efficientnet_b8": Variant(2.2, 3.6, 672, 0.5),
    "efficientnet_l2": Variant(4.3, 5.3, 800, 0.5),
}
LITE = {
    "efficientnet_lite0": Variant(1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": Variant(1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": Variant(1.1, 1.2, 260, 0.3),
    "efficientnet_lite3": Variant(1.2, 1.4, 280, 0.3),
    "efficientnet_lite4": Variant(1.4, 1.8, 300, 0.3),
}
VARIANTS = FAMILY | LITE


@dataclass(frozen=True)
class Architecture:
    """All numbers that define a network, after scaling and rounding."""

    stem: int
    stages: tuple[Stage, ...]
    head: int
    resolution: int
    dropout: float
    activation: str = "silu"  # silu | relu6
    padding: str = "symmetric"  # this and the next two fields: see schema.Model
    bn_epsilon: float = 1e-3
    preprocessing: str = "imagenet"


def architecture(
    variant: Variant,
    width: float = 1.0,
    depth: float = 1.0,
    resolution: float = 1.0,
    table: Sequence[Stage] = B0_STAGES,
) -> Architecture:
    """Scales Table 1, or another stage table, by a variant's coefficients times the given multipliers.

    Args:
        variant: An entry of ``VARIANTS``.
        width: Additional multiplier of all channel counts; shrinks or widens the whole family.
        depth: Additional multiplier of all repeats.
        resolution: Additional multiplier of the input side; the result is rounded to a whole pixel.
        table: Stages 2 to 8; a searched network supplies its own table.
    """
    total_width, total_depth = variant.width * width, variant.depth * depth
    stages = tuple(
        replace(
            stage,
            channels=round_channels(stage.channels, total_width),
            repeats=round_repeats(stage.repeats, total_depth),
        )
        for stage in table
    )
    return Architecture(
        stem=round_channels(B0_STEM, total_width),
        stages=stages,
        head=round_channels(B0_HEAD, total_width),
        resolution=max(1, round(variant.resolution * resolution)),
        dropout=variant.dropout,
    )


def squeezed(channels_in: int, se_ratio: float) -> int:
    """Inner width of squeeze-and-excitation, computed from the block's input channels, not from the gated channels."""
    return max(1, int(channels_in * se_ratio))


def lite(scaled: Architecture, table: Sequence[Stage] = B0_STAGES) -> Architecture:
    """Converts to EfficientNet-Lite: no squeeze-and-excitation, ReLU6; unscaled stem, head, first and last repeats.

    Args:
        scaled: Architecture of a ``LITE`` variant.
        table: Stage table that it was scaled from.
    """
    first, *middle, last = (replace(stage, se_ratio=0.0) for stage in scaled.stages)
    first, last = replace(first, repeats=table[0].repeats), replace(last, repeats=table[-1].repeats)
    return replace(scaled, stem=B0_STEM, stages=(first, *middle, last), head=B0_HEAD, activation="relu6")
