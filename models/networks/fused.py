"""Layers in few passes over memory for training on a CPU, by the C code of ``models.networks.native``.

A depthwise or pointwise convolution, its batch norm, its activation and the residual are one operation of autograd,
and so is squeeze-and-excitation. Where they do not apply (other devices and data types, evaluation, compilation, a
library that was not built), the modules themselves compute the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.networks import native
from models.networks.native import ConvShape, Layers, NormShape

ACTIVATIONS = {nn.SiLU: 1, nn.ReLU6: 2}  # layers.h: struct norm
KERNELS, STRIDES = (3, 5, 7), (1, 2)
# Up to here a matrix product is faster than oneDNN's convolution, whose call alone takes 30 us a direction. Medians on
# an AMD EPYC, one thread: 288 pixels of 32 -> 192 channels 0.25 against 0.50 ms, 1,152 of 16 -> 96 0.26 against 0.47,
# 8,192 of 16 -> 96 1.4 against 1.3 (forward and backward together).
MATMUL_PIXELS, MATMUL_PRODUCTS = 2048, 2**24


SMALL_GATE_PRODUCTS = 2**19  # up to here torch's calls take longer than the products


class _Plan(NamedTuple):
    """What an operation computes, besides its tensors."""

    layers: Layers
    norm: NormShape
    depthwise: ConvShape | None
    pointwise: bool


def usable(x: Tensor) -> Layers | None:
    """Returns the C library if it can compute on ``x`` in the present mode, otherwise None."""
    if type(x) is not Tensor or x.device.type != "cpu" or x.dtype != torch.float32 or x.dim() != 4 or x.shape[0] < 2:
        return None  # a subclass may have no memory, and one image may have too few pixels for statistics
    if not x.is_contiguous(memory_format=torch.channels_last):
        return None
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    return native.load()


def conv_norm(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.Module,
    activation: type[nn.Module] | None,
    padding: Sequence[int],
    keep: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor | None:
    """Computes ``activation(norm(conv(x))) * keep + residual`` in training; None where the C code does not apply.

    Args:
        x: Input ``[N, C_in, H, W]``.
        conv: Convolution; it is computed here if it is depthwise or a small matrix product.
        norm: Batch norm, whose running statistics are updated.
        activation: Class of the activation, or None.
        padding: Pixels before and after the rows, before and after the columns.
        keep: Factor of each image, ``[N, 1, 1, 1]``; only without activation.
        residual: Tensor to add, shaped like the result; only without activation.
    """
    layers = usable(x)
    if layers is None or type(norm) is not nn.BatchNorm2d or not _is_plain(norm):
        return None
    if not _are_float32(conv.weight, norm.weight) or (activation is not None and activation not in ACTIVATIONS):
        return None
    depthwise = _depthwise_shape(x, conv, padding)
    pointwise = _is_small_product(x, conv)
    if depthwise is None and not pointwise:
        x = conv(x).contiguous(memory_format=torch.channels_last)
    height, width = x.shape[2:] if depthwise is None else (depthwise.out_height, depthwise.out_width)
    image_pixels = height * width
    code = 0 if activation is None else ACTIVATIONS[activation]
    momentum = float(norm.momentum or 0.0)
    shape = _norm_shape(x.shape[0] * image_pixels, image_pixels, conv.out_channels, code, norm.eps, momentum)
    plan = _Plan(layers, shape, depthwise, pointwise)
    running = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    out: Tensor = _ConvNorm.apply(plan, running, x, conv.weight, norm.weight, norm.bias, keep, residual)  # type: ignore[no-untyped-call]
    return out


def squeeze_excite(x: Tensor, reduce: nn.Conv2d, expand: nn.Conv2d) -> Tensor | None:
    """Computes squeeze-and-excitation with SiLU in training; None where the C code does not apply."""
    layers = usable(x)
    if layers is None or not _are_float32(reduce.weight, expand.weight):
        return None
    operation = _SmallGate if x.shape[0] * reduce.weight.numel() <= SMALL_GATE_PRODUCTS else _SqueezeExcite
    out: Tensor = operation.apply(layers, x, reduce.weight, reduce.bias, expand.weight, expand.bias)  # type: ignore[no-untyped-call]
    return out


class _ConvNorm(torch.autograd.Function):
    """``conv_norm`` as one operation."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: _Plan,
        running: tuple[Tensor, Tensor, Tensor],
        x: Tensor,
        weight: Tensor,
        gamma: Tensor,
        beta: Tensor,
        keep: Tensor | None,
        residual: Tensor | None,
    ) -> Tensor:
        """Saves the inputs of convolution and batch norm; the activation is computed again in the backward pass."""
        if plan.depthwise is not None:
            y = plan.layers.depthwise(plan.depthwise, x, weight)
        else:
            y = _images(torch.mm(_pixels(x), weight.flatten(1).t()), x) if plan.pointwise else x
        out, saved = plan.layers.norm(plan.norm, y, (gamma, beta), running, keep, residual)
        ctx.plan, ctx.has_residual = plan, residual is not None
        ctx.save_for_backward(x, weight, gamma, beta, keep, y, saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Returns the gradients in the order of ``forward``'s arguments."""
        _refuse_second_derivatives()
        plan: _Plan = ctx.plan
        x, weight, gamma, beta, keep, y, saved = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        dy, dgamma, dbeta = plan.layers.norm_backward(plan.norm, y, grad, (gamma, beta), saved, keep)
        dx: Tensor | None = dy
        dweight: Tensor | None = None
        if plan.depthwise is not None:
            dx = plan.layers.depthwise_input(plan.depthwise, dy, weight) if ctx.needs_input_grad[2] else None
            dweight = plan.layers.depthwise_weight(plan.depthwise, x, dy, weight) if ctx.needs_input_grad[3] else None
        elif plan.pointwise:
            rows = _pixels(dy)
            dx = _images(torch.mm(rows, weight.flatten(1)), x) if ctx.needs_input_grad[2] else None
            dweight = torch.mm(rows.t(), _pixels(x)).view(weight.shape) if ctx.needs_input_grad[3] else None
        return None, None, dx, dweight, dgamma, dbeta, None, grad if ctx.has_residual else None


class _SqueezeExcite(torch.autograd.Function):
    """``squeeze_excite`` as one operation."""

    @staticmethod
    def forward(
        ctx: Any, layers: Layers, x: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor
    ) -> Tensor:
        """Saves the input and the small tensors."""
        reduce, expand = reduce.flatten(1), expand.flatten(1)
        pooled = layers.reduce(x, None, 1 / (x.shape[2] * x.shape[3]))
        hidden = torch.addmm(reduce_bias, pooled, reduce.t())
        active = F.silu(hidden)
        gate = torch.addmm(expand_bias, active, expand.t()).sigmoid_()
        ctx.layers = layers
        ctx.save_for_backward(x, reduce, expand, pooled, hidden, active, gate)
        return layers.scale(x, gate, None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Returns the gradients in the order of ``forward``'s arguments."""
        _refuse_second_derivatives()
        layers: Layers = ctx.layers
        x, reduce, expand, pooled, hidden, active, gate = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        outer = torch.ops.aten.sigmoid_backward(layers.reduce(x, grad, 1.0), gate)
        inner = torch.ops.aten.silu_backward(torch.mm(outer, expand), hidden)
        shift = torch.mm(inner, reduce).mul_(1 / (x.shape[2] * x.shape[3]))
        dx = layers.scale(grad, gate, shift)
        dreduce, dexpand = torch.mm(inner.t(), pooled), torch.mm(outer.t(), active)
        return None, dx, dreduce[:, :, None, None], inner.sum(0), dexpand[:, :, None, None], outer.sum(0)


class _SmallGate(torch.autograd.Function):
    """``squeeze_excite`` as one operation, with its matrix products in the C code."""

    @staticmethod
    def forward(
        ctx: Any, layers: Layers, x: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor
    ) -> Tensor:
        """Saves the input and the small tensors."""
        y, saved = layers.gate(x, (reduce, reduce_bias, expand, expand_bias))
        ctx.layers = layers
        ctx.save_for_backward(x, reduce, expand, saved)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Returns the gradients in the order of ``forward``'s arguments."""
        _refuse_second_derivatives()
        layers: Layers = ctx.layers
        x, reduce, expand, saved = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        dx, dweights = layers.gate_backward(x, grad, reduce, expand, saved)
        return None, dx, *dweights


def _are_float32(*weights: Tensor) -> bool:
    """Whether weights are such as C can read; where they do not match the input, torch raises a clear error."""
    return all(weight.is_cpu and weight.dtype == torch.float32 for weight in weights)


def _refuse_second_derivatives() -> None:
    """Raises in a backward pass that is recorded; as ``once_differentiable``, which takes 6 us a call."""
    if torch.is_grad_enabled():
        raise RuntimeError("layers in C have no second derivative; use network.eval() or another device")


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    """Whether it normalizes by the batch, has gamma and beta, and tracks statistics with a constant momentum."""
    return norm.training and norm.affine and norm.track_running_stats and norm.momentum is not None


def _depthwise_shape(x: Tensor, conv: nn.Conv2d, padding: Sequence[int]) -> ConvShape | None:
    """Returns the shape of a depthwise convolution that the C code supports, otherwise None."""
    if conv.groups == 1 or conv.groups != conv.in_channels or conv.groups != conv.out_channels or conv.bias is not None:
        return None
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    square = conv.kernel_size == (kernel, kernel) and conv.stride == (stride, stride) and conv.dilation == (1, 1)
    if not square or kernel not in KERNELS or stride not in STRIDES or not conv.weight.is_contiguous():
        return None
    return _conv_shape(tuple(x.shape), kernel, stride, tuple(padding))


@lru_cache(maxsize=1024)
def _conv_shape(shape: tuple[int, ...], kernel: int, stride: int, padding: tuple[int, ...]) -> ConvShape | None:
    (images, channels, height, width), (top, bottom, left, right) = shape, padding
    rows, columns = height + top + bottom - kernel, width + left + right - kernel
    if rows < 0 or columns < 0 or max(top, left) >= kernel:
        return None
    out_height, out_width = rows // stride + 1, columns // stride + 1
    return ConvShape(images, height, width, channels, out_height, out_width, kernel, stride, top, left)


@lru_cache(maxsize=1024)
def _norm_shape(
    pixels: int, image_pixels: int, channels: int, activation: int, epsilon: float, momentum: float
) -> NormShape:
    return NormShape(pixels, image_pixels, channels, activation, epsilon, momentum)


def _is_small_product(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether it is a pointwise convolution that is faster as a matrix product."""
    if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.groups != 1 or conv.bias is not None:
        return False
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return pixels <= MATMUL_PIXELS and pixels * conv.in_channels * conv.out_channels <= MATMUL_PRODUCTS


def _pixels(x: Tensor) -> Tensor:
    """Views channels_last ``[N, C, H, W]`` as ``[N * H * W, C]``."""
    images, channels, height, width = x.shape
    return x.as_strided((images * height * width, channels), (channels, 1))


def _images(rows: Tensor, like: Tensor) -> Tensor:
    """Views contiguous ``[N * H * W, C]`` as channels_last ``[N, C, H, W]`` with the N, H and W of ``like``."""
    images, _, height, width = like.shape
    channels = rows.shape[1]
    strides = (height * width * channels, 1, width * channels, channels)
    return rows.as_strided((images, channels, height, width), strides)
