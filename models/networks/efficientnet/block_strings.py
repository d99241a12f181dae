"""Stages as text, in the official code's notation: ``r2_k5_s22_e6_i24_o40_se0.25``.

r repeats, k kernel, s stride (twice), e expansion, i and o input and output channels, se the ratio of
squeeze-and-excitation; ``noskip`` leaves out the residual and ``f1`` makes one k x k convolution of expansion and
depthwise convolution. Source: official efficientnet_builder.py, ``BlockDecoder``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from infra.errors import ConfigError
from models.networks.efficientnet.variants import B0_STEM, Stage

FORM = "r1_k3_s11_e1_i32_o16_se0.25"
_BLOCK = re.compile(
    r"r(?P<r>\d+)_k(?P<k>\d+)_s(?P<s>\d)(?P<s2>\d)_e(?P<e>\d+)_i(?P<i>\d+)_o(?P<o>\d+)"
    # c, f and p are written by the official encoder; of c (blocks without a depthwise convolution) and p (space to
    # depth) no network of the family has any.
    r"(_c0)?(_f(?P<f>[01]))?(_p0)?(_se(?P<se>[01](\.\d+)?))?(?P<noskip>_noskip)?"
)


def decode(blocks: Sequence[str]) -> tuple[Stage, ...]:
    """Reads a network's stages.

    Raises:
        ConfigError: a block that is not in the notation, or does not take what the one before it gives.
    """
    stages: list[Stage] = []
    channels = B0_STEM
    for number, text in enumerate(blocks, start=1):
        stage, channels_in = _stage(number, text)
        if channels_in != channels:
            giver = f"block {number - 1}" if number > 1 else "the stem"
            raise ConfigError(
                f"model.blocks: block {number} ({text}) takes i{channels_in} channels, {giver} gives {channels}"
            )
        stages.append(stage)
        channels = stage.channels
    return tuple(stages)


def encode(stages: Sequence[Stage]) -> list[str]:
    """The stages as text; ``decode`` gives them back."""
    blocks: list[str] = []
    channels = B0_STEM
    for stage in stages:
        text = (
            f"r{stage.repeats}_k{stage.kernel}_s{stage.stride}{stage.stride}_e{stage.expand_ratio}"
            f"_i{channels}_o{stage.channels}"
        )
        text += "_f1" if stage.fused else ""
        text += f"_se{stage.se_ratio:g}" if stage.se_ratio else ""
        blocks.append(text if stage.skip else f"{text}_noskip")
        channels = stage.channels
    return blocks


def _stage(number: int, text: str) -> tuple[Stage, int]:
    """One stage, and the channels that it takes."""
    found = _BLOCK.fullmatch(text)
    if found is None:
        raise ConfigError(f"model.blocks: block {number} is {text!r}, which is not of the form {FORM}[_f1][_noskip]")
    repeats, kernel, stride, expand, channels_in, channels = (int(found[key]) for key in "rkseio")
    se_ratio = float(found["se"] or 0)
    for wrong, says in (
        (kernel % 2 == 0, f"k{kernel}: kernels are odd"),
        (found["s"] != found["s2"] or stride not in (1, 2), f"s{found['s']}{found['s2']}: strides are 11 or 22"),
        (min(repeats, expand, channels_in, channels) == 0, "r, e, i and o are at least 1"),
        (se_ratio > 1, f"se{found['se']}: the ratio is at most 1"),
    ):
        if wrong:
            raise ConfigError(f"model.blocks: block {number} ({text}) has {says}")
    skip, fused = found["noskip"] is None, found["f"] == "1"
    return Stage(expand, kernel, stride, channels, repeats, se_ratio, skip, fused), channels_in
