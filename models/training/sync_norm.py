"""Batch norm over the images of all ranks, on CPUs; torch's own (``nn.SyncBatchNorm``) computes on GPUs only."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

IMAGES = (0, 2, 3)  # all dimensions but the channels


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in training are those of the images of all ranks.

    Gradients are those of the sum of the ranks' losses, as with ``nn.SyncBatchNorm``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes ``[N, C, H, W]``, in training over the N of all ranks."""
        if not self.training:
            return super().forward(x)
        out, mean, variance, count = _Synchronized.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            momentum = float(self.momentum or 0.0)
            for running, new in ((self.running_mean, mean), (self.running_var, variance * count / (count - 1))):
                running.mul_(1 - momentum).add_(new, alpha=momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        return out  # type: ignore[no-any-return]


class _Synchronized(torch.autograd.Function):
    """Normalization with the mean and variance of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the normalized tensor, and mean, variance (over N) and number of values of all ranks."""
        values = _widened(x)
        sums = torch.cat([values.sum(IMAGES), values.new_tensor([values.numel() / values.shape[1]])])
        dist.all_reduce(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        centered = values - _channels(mean)
        variance = centered.square().sum(IMAGES)  # in two passes: the difference of large squares would lose digits
        dist.all_reduce(variance)
        variance /= count
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(centered.mul_(_channels(scale)), weight, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        out = torch.addcmul(_channels(bias), centered, _channels(weight))
        return out.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Returns the gradients of input, weight and bias; those of the weights are this rank's part."""
        normalized, weight, scale, count = ctx.saved_tensors
        values = _widened(grad)
        bias_grad, weight_grad = values.sum(IMAGES), (values * normalized).sum(IMAGES)
        sums = torch.cat([bias_grad, weight_grad])
        dist.all_reduce(sums)
        mean_grad, mean_product = (sums / count).chunk(2)
        x_grad = _channels(weight * scale) * (values - _channels(mean_grad) - normalized * _channels(mean_product))
        return x_grad.to(grad.dtype), weight_grad, bias_grad, None


def _widened(values: Tensor) -> Tensor:
    """Returns the values in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def synchronize(network: nn.Module, device: torch.device) -> None:
    """Replaces every batch norm, in place, by one over all ranks; names and tensors stay the same."""
    for parent in [*network.modules()]:
        for name, module in parent.named_children():
            if type(module) is nn.BatchNorm2d:
                setattr(parent, name, _synchronized(module, device))


def _synchronized(norm: nn.BatchNorm2d, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call, no-any-return]
    norm.__class__ = SyncBatchNorm2d  # which adds methods, and no attribute
    return norm
