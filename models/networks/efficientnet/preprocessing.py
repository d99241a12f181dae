"""Input normalization, and a stem for weights trained with a different one.

Images are always normalized as in the paper, so only the stem depends on what the weights expect.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks import native
from models.networks.description import MEAN_RGB, STDDEV_RGB
from models.networks.efficientnet.blocks import ConvNorm

# Mean and deviation of other preprocessings, the same for all channels. Sources: official
# preprocessing of AdvProp (README, "2x - 1"), lite/efficientnet_lite_builder.py.
OTHERS = {"advprop": (127.5, 127.5), "lite": (127.0, 128.0)}

_CACHED_FLOATS = 2**17  # 512 kB


class Normalize(nn.Module):
    """uint8 ``[N, R, R, 3]`` on any device -> normalized float ``[N, 3, R, R]`` on ``device``.

    The result is channels_last without a copy, because the input is stored pixel by pixel.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.mean = torch.tensor(MEAN_RGB, device=device)
        self.std = torch.tensor(STDDEV_RGB, device=device)

    def forward(self, images: Tensor) -> Tensor:
        """Normalizes a batch; shapes as in the class docstring."""
        if self.device.type == "cpu":
            layers = native.load()
            if layers is None:
                return self._normalize_by_rows(images)
            return layers.standardize(images.contiguous(), self.mean, self.std).permute(0, 3, 1, 2)
        x = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        return x.sub_(self.mean.view(1, 3, 1, 1)).div_(self.std.view(1, 3, 1, 1))

    def _normalize_by_rows(self, images: Tensor) -> Tensor:
        """Gives the same without the C code; an inner loop over a row is faster than one over three channels."""
        n, rows, columns, _ = images.shape
        mean, std = self.mean.repeat(columns), self.std.repeat(columns)
        pixels = torch.empty((n, rows, columns * 3))
        some = max(1, _CACHED_FLOATS // (rows * columns * 3))  # images that stay in the cache between two operations
        for source, target in zip(torch.split(images.flatten(2), some), torch.split(pixels, some), strict=True):
            torch.sub(source, mean, out=target).div_(std)
        return pixels.view(n, rows, columns, 3).permute(0, 3, 1, 2)


class RenormalizingStem(ConvNorm):
    """Stem whose weights expect ``(pixel - mean) / deviation``.

    It replaces the paper's normalization before padding, so the zeros of the padding mean the same as in the training
    of those weights.
    """

    def __init__(
        self, channels_out: int, activation: type[nn.Module], convolution: type[nn.Conv2d], preprocessing: str
    ) -> None:
        super().__init__(3, channels_out, 3, 2, activation=activation, convolution=convolution)
        self.mean, self.deviation = OTHERS[preprocessing]

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, 3, R, R]`` with the paper's normalization -> ``[N, C_out, ceil(R / 2), ceil(R / 2)]``."""
        channels = [
            channel * (std / self.deviation) + (mean - self.mean) / self.deviation
            for channel, mean, std in zip(x.unbind(1), MEAN_RGB, STDDEV_RGB, strict=True)
        ]
        out: Tensor = super().forward(torch.stack(channels, dim=1))
        return out
