"""Pixels as networks get them: the paper's normalisation, and the stem of a network whose weights expect another.

Whatever the weights expect, images are normalised in one way, so nothing before the network or behind it need know.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.efficientnet.blocks import ConvNorm

# Per channel, of pixels 0..255. Source: official preprocessing.py, MEAN_RGB and STDDEV_RGB.
MEAN_RGB = (123.675, 116.28, 103.53)
STDDEV_RGB = (58.395, 57.12, 57.375)

# Mean and deviation of pixels that other trainings worked with, the same for each channel. Sources: official
# preprocessing of AdvProp (README, "2x - 1"), lite/efficientnet_lite_builder.py.
OTHERS = {"advprop": (127.5, 127.5), "lite": (127.0, 128.0)}


class OtherStem(ConvNorm):
    """A stem whose weights expect ``(pixel - mean) / deviation``.

    It undoes the paper's normalisation before the padding, so that the padding's zeros mean what they meant in the
    network's own training.
    """

    def __init__(
        self, channels_out: int, activation: type[nn.Module], convolution: type[nn.Conv2d], preprocessing: str
    ) -> None:
        super().__init__(3, channels_out, 3, 2, activation=activation, convolution=convolution)
        self.mean, self.deviation = OTHERS[preprocessing]

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, 3, R, R]`` of the paper's normalisation -> ``[N, C_out, ceil(R / 2), ceil(R / 2)]``."""
        channels = [
            channel * (std / self.deviation) + (mean - self.mean) / self.deviation
            for channel, mean, std in zip(x.unbind(1), MEAN_RGB, STDDEV_RGB, strict=True)
        ]
        out: Tensor = super().forward(torch.stack(channels, dim=1))  # type: ignore[no-untyped-call]
        return out
