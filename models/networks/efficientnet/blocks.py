"""The building blocks: convolution + BN + SiLU, squeeze-and-excitation, stochastic depth, MBConv.

Source: official efficientnet_model.py (``MBConvBlock``), paper Table 1 and section 5.2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.networks import fused
from models.networks.efficientnet.variants import squeezed

# TF's BN momentum 0.99 is PyTorch's 0.01; neither is PyTorch's default (0.1, 1e-5).
BN_MOMENTUM = 0.01
BN_EPSILON = 1e-3
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # neither is a subclass of the other


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: the least that yields ``ceil(side / stride)`` output pixels.

    If the total padding is odd, the extra pixel goes to the bottom and right, so a 3x3 convolution of stride 2 on an
    even side pads (0, 1) and not (1, 1). Source: TensorFlow's documentation of ``tf.nn``, "padding".
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W] -> [N, C_out, ceil(H / stride), ceil(W / stride)]``."""
        if self.stride == (1, 1):  # symmetric kernel // 2, which nn.Conv2d already pads
            return super().forward(x)
        top, bottom, left, right = _padding(self, x)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _padding(conv: nn.Conv2d, x: Tensor) -> tuple[int, ...]:
    """Returns the padding before and after the rows, before and after the columns."""
    if not isinstance(conv, SameConv2d):
        rows, columns = (int(pixels) for pixels in conv.padding)
        return rows, rows, columns, columns
    sides = zip(x.shape[2:], conv.kernel_size, conv.stride, strict=True)
    return tuple(pixels for side in sides for pixels in _same_padding(*side))


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns the padding in pixels before and after an axis of length ``side``."""
    pixels = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
    return pixels // 2, pixels - pixels // 2


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm and, unless ``activation`` is None, an activation.

    Symmetric padding (kernel // 2) gives the same sizes and counts as ``SameConv2d`` but, at stride 2, other numerics.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.SiLU,
        convolution: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        layers: list[nn.Module] = [
            convolution(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out, eps=BN_EPSILON, momentum=BN_MOMENTUM),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W] -> [N, C_out, H / stride, W / stride]``."""
        out = self.fused(x) if self.training else None
        if out is None:
            out = super().forward(x)  # type: ignore[no-untyped-call]
        return out

    def fused(self, x: Tensor, keep: Tensor | None = None, residual: Tensor | None = None) -> Tensor | None:
        """Computes ``self(x) * keep + residual`` in few passes over memory; None if that is not possible."""
        conv, norm, *activation = self
        assert isinstance(conv, nn.Conv2d)  # noqa: S101 - for the type checker
        kind = type(activation[0]) if activation else None
        return fused.conv_norm(x, conv, norm, kind, _padding(conv, x), keep, residual)


class SqueezeExcite(nn.Module):
    """Channel gate: global mean -> 1x1 conv -> SiLU -> 1x1 conv -> sigmoid -> scale. Convs have biases.

    The convolutions of one pixel are computed as matrix products, which on a CPU take a tenth of the time.

    Args:
        channels: Channels of the gated tensor.
        squeezed: Inner width; the official code takes a quarter of the BLOCK's input, not of ``channels``.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.SiLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W] -> [N, C, H, W]``."""
        out = fused.squeeze_excite(x, self.reduce, self.expand) if self.training else None
        if out is not None:
            return out
        pooled = x.mean((2, 3))
        hidden: Tensor = self.act(F.linear(pooled, self.reduce.weight.flatten(1), self.reduce.bias))
        gate = F.linear(hidden, self.expand.weight.flatten(1), self.expand.bias)
        return x * gate.sigmoid()[:, :, None, None]


class StochasticDepth(nn.Module):
    """Drops a sample's residual branch with probability 1 - survival_prob, and rescales the kept ones.

    The scale is applied in float32 within the addition, in bfloat16 too: 1 / 0.9875 rounded to bfloat16 is 1.0156, so
    all kept branches would be 0.3 % too large.

    Source: official utils.py ``drop_connect``: per sample, divided by the survival probability.
    """

    def __init__(self, survival_prob: float) -> None:
        super().__init__()
        self.survival_prob = survival_prob

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Returns ``residual`` plus what is kept of ``x``, both ``[N, C, H, W]``; their sum in evaluation."""
        if not self.drops:
            return residual + x
        return torch.addcmul(residual, x, self.drawn(x), value=1 / self.survival_prob)

    @property
    def drops(self) -> bool:
        """Whether samples may be dropped."""
        return self.training and self.survival_prob < 1

    def factor(self, x: Tensor) -> Tensor | None:
        """Returns the factor of each sample of ``x``, ``[N, 1, 1, 1]``: 0 or 1 / survival_prob; None if all are 1."""
        return self.drawn(x).div_(self.survival_prob) if self.drops else None

    def drawn(self, x: Tensor) -> Tensor:
        """Draws for each sample of ``x`` whether it is kept, ``[N, 1, 1, 1]``: 1 or 0."""
        return torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(self.survival_prob)


class MBConv(nn.Module):
    """Mobile inverted bottleneck with squeeze-and-excitation.

    Order: expand-BN-SiLU (omitted at ratio 1), depthwise-BN-SiLU, SE, project-BN, stochastic depth, add.
    The residual exists only if the stride is 1 and the channels match; SE only if its ratio is not 0.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        expand_ratio: int,
        se_ratio: float,
        survival_prob: float,
        skip: bool = True,
        activation: type[nn.Module] = nn.SiLU,
        convolution: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        inner = channels_in * expand_ratio
        self.expand = ConvNorm(channels_in, inner, 1, activation=activation) if expand_ratio != 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride, inner, activation, convolution)
        self.se = _squeeze_excite(channels_in, inner, se_ratio)
        self.project = ConvNorm(inner, channels_out, 1, activation=None)
        self.has_skip = skip and stride == 1 and channels_in == channels_out
        self.drop = StochasticDepth(survival_prob)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W] -> [N, C_out, ceil(H / stride), ceil(W / stride)]``."""
        return _project(self, self.se(self.depthwise(self.expand(x))), x)


class FusedMBConv(nn.Module):
    """MBConv whose expansion and depthwise convolution are one k x k convolution, a plain one at expand ratio 1.

    Source: official efficientnet_model.py, ``fused_conv``: conv-BN-SiLU, SE, project-BN, stochastic depth, add.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        expand_ratio: int,
        se_ratio: float,
        survival_prob: float,
        skip: bool = True,
        activation: type[nn.Module] = nn.SiLU,
        convolution: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        inner = channels_in * expand_ratio
        self.conv = ConvNorm(channels_in, inner, kernel, stride, 1, activation, convolution)
        self.se = _squeeze_excite(channels_in, inner, se_ratio)
        self.project = ConvNorm(inner, channels_out, 1, activation=None)
        self.has_skip = skip and stride == 1 and channels_in == channels_out
        self.drop = StochasticDepth(survival_prob)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W] -> [N, C_out, ceil(H / stride), ceil(W / stride)]``."""
        return _project(self, self.se(self.conv(x)), x)


def _project(block: MBConv | FusedMBConv, inner: Tensor, x: Tensor) -> Tensor:
    """Applies the last convolution of a block, stochastic depth and the residual connection to ``x``."""
    out: Tensor | None = None
    if block.has_skip and block.training and fused.usable(inner) is not None:
        keep = block.drop.factor(inner)
        out = block.project.fused(inner, keep, x)
        if out is None:
            out = block.project(inner) if keep is None else block.project(inner) * keep
            out = x + out
    elif block.has_skip:
        out = block.drop(block.project(inner), x)
    return block.project(inner) if out is None else out


def _squeeze_excite(channels_in: int, inner: int, se_ratio: float) -> nn.Module:
    return SqueezeExcite(inner, squeezed(channels_in, se_ratio)) if se_ratio else nn.Identity()
