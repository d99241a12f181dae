"""Encodes and decodes stages in the official code's notation: ``r2_k5_s22_e6_i24_o40_se0.25``.

r repeats, k kernel, s stride (vertical, horizontal), e expand ratio, i and o input and output channels, se
the squeeze-and-excitation ratio; ``noskip`` omits the residual and ``f1`` fuses the expansion and the depthwise
convolution into one k x k convolution. Source: official efficientnet_builder.py, ``BlockDecoder``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from infra.errors import ConfigError
from models.networks.efficientnet.variants import B0_STEM, Stage

FORM = "r1_k3_s11_e1_i32_o16_se0.25"
_BLOCK = re.compile(
    r"r(?P<r>\d+)_k(?P<k>\d+)_s(?P<s>\d)(?P<s2>\d)_e(?P<e>\d+)_i(?P<i>\d+)_o(?P<o>\d+)"
    # The official encoder writes c, f and p; no network of the family uses c (blocks without a depthwise convolution)
    # or p (space to depth).
    r"(_c0)?(_f(?P<f>[01]))?(_p0)?(_se(?P<se>[01](\.\d+)?))?(?P<noskip>_noskip)?"
)


def decode(blocks: Sequence[str]) -> tuple[Stage, ...]:
    """Parses the stages of a network.

    Raises:
        ConfigError: a block is not in the notation, or its input channels are not the previous output channels.
    """
    stages: list[Stage] = []
    channels = B0_STEM
    for number, text in enumerate(blocks, start=1):
        stage, channels_in = _parse_block(number, text)
        if channels_in != channels:
            source = f"block {number - 1}" if number > 1 else "the stem"
            raise ConfigError(
                f"model.blocks: block {number} ({text}) expects i{channels_in} input channels, "
                f"but {source} outputs {channels}"
            )
        stages.append(stage)
        channels = stage.channels
    return tuple(stages)


def encode(stages: Sequence[Stage]) -> list[str]:
    """Formats stages as text, the inverse of ``decode``."""
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


def _parse_block(number: int, text: str) -> tuple[Stage, int]:
    """Returns one stage and its number of input channels."""
    match = _BLOCK.fullmatch(text)
    if match is None:
        raise ConfigError(f"model.blocks: block {number} is {text!r}, expected the form {FORM}[_f1][_noskip]")
    repeats, kernel, stride, expand, channels_in, channels = (int(match[key]) for key in "rkseio")
    se_ratio = float(match["se"] or 0)
    for is_invalid, problem in (
        (kernel % 2 == 0, f"k{kernel}: kernels are odd"),
        (match["s"] != match["s2"] or stride not in (1, 2), f"s{match['s']}{match['s2']}: strides are 11 or 22"),
        (min(repeats, expand, channels_in, channels) == 0, "r, e, i and o are at least 1"),
        (se_ratio > 1, f"se{match['se']}: the ratio is at most 1"),
    ):
        if is_invalid:
            raise ConfigError(f"model.blocks: block {number} ({text}) has {problem}")
    skip, fused = match["noskip"] is None, match["f"] == "1"
    return Stage(expand, kernel, stride, channels, repeats, se_ratio, skip, fused), channels_in
