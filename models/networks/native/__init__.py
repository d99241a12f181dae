"""C code for training on a CPU: depthwise convolution, batch norm with activation, squeeze-and-excitation, RMSProp.

The library is built at install (``setup.py``) and called through ctypes, which releases the GIL for the whole call. All
tensors are float32 on the CPU, activations in channels_last memory. Without the library, torch's operators compute the
same up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

_POINTER, _INT, _INT64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64


class ConvShape(ctypes.Structure):
    """Shape of a depthwise convolution; ``top`` and ``left`` are pixels of padding. layers.h: ``struct depthwise``."""

    _fields_ = tuple(
        (name, _INT64)
        for name in (
            "images",
            "height",
            "width",
            "channels",
            "out_height",
            "out_width",
            "kernel",
            "stride",
            "top",
            "left",
        )
    )
    images: int
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int


class NormShape(ctypes.Structure):
    """Shape and constants of a batch norm; layers.h: ``struct norm``."""

    _fields_ = (
        ("pixels", _INT64),
        ("image_pixels", _INT64),
        ("channels", _INT64),
        ("activation", _INT64),
        ("epsilon", ctypes.c_double),
        ("momentum", ctypes.c_double),
    )


class RMSProp(ctypes.Structure):
    """Tensors and constants of an update of ``models.training.optim.TFRMSProp``; layers.h: ``struct rmsprop``."""

    _fields_ = (
        *((name, _POINTER) for name in ("weights", "mean_square", "momentum", "gradients")),
        *((name, ctypes.c_double) for name in ("lr", "square_decay", "momentum_decay", "epsilon", "weight_decay")),
    )


class Layers:
    """The loaded C library. Each function returns new tensors, and raises MemoryError if there is no memory."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.effnet_depthwise.argtypes = [*[_POINTER] * 4, _INT]
        library.effnet_depthwise_input.argtypes = [*[_POINTER] * 4, _INT]
        library.effnet_depthwise_weights.argtypes = [*[_POINTER] * 4, _INT]
        library.effnet_norm.argtypes = [*[_POINTER] * 11, _INT]
        library.effnet_norm_backward.argtypes = [*[_POINTER] * 10, _INT]
        library.effnet_gate.argtypes = [*[_POINTER] * 7, *[_INT64] * 4, _INT]
        library.effnet_gate_backward.argtypes = [*[_POINTER] * 10, *[_INT64] * 4, _INT]
        library.effnet_rmsprop.argtypes = [_POINTER, _INT64, _INT]
        library.effnet_reduce.argtypes = [_POINTER, _POINTER, ctypes.c_double, _POINTER, *[_INT64] * 3, _INT]
        library.effnet_scale.argtypes = [*[_POINTER] * 4, *[_INT64] * 3, _INT]
        library.effnet_standardize.argtypes = [*[_POINTER] * 4, _INT64, _INT]

    def depthwise(self, shape: ConvShape, x: Tensor, weight: Tensor) -> Tensor:
        """Convolves ``x [N, C, H, W]`` by ``weight [C, 1, K, K]``."""
        y = _images(x, shape.out_height, shape.out_width)
        _check(self.library.effnet_depthwise(ctypes.addressof(shape), *_addresses(x, weight, y), _threads()))
        return y

    def depthwise_input(self, shape: ConvShape, grad: Tensor, weight: Tensor) -> Tensor:
        """Returns the gradient of the input from that of the output."""
        out = _images(grad, shape.height, shape.width)
        _check(self.library.effnet_depthwise_input(ctypes.addressof(shape), *_addresses(grad, weight, out), _threads()))
        return out

    def depthwise_weight(self, shape: ConvShape, x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
        """Returns the gradient of the weights from the input and the gradient of the output."""
        out = torch.empty_like(weight)
        _check(self.library.effnet_depthwise_weights(ctypes.addressof(shape), *_addresses(x, grad, out), _threads()))
        return out

    def norm(
        self,
        shape: NormShape,
        x: Tensor,
        affine: tuple[Tensor, Tensor],
        running: tuple[Tensor, Tensor, Tensor],
        keep: Tensor | None,
        residual: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Normalizes ``x [N, C, H, W]`` by batch statistics and updates the running ones.

        Args:
            shape: Shape, activation and constants.
            x: Input.
            affine: gamma and beta, ``[C]``.
            running: Running mean and variance, ``[C]``, and the number of batches, an int64; updated in place.
            keep: Factor of each image before the residual is added, ``[N]``; only without activation.
            residual: Added to the result; only without activation.

        Returns:
            The output, and batch mean and inverse deviation as ``[2, C]`` for ``norm_backward``.
        """
        y, saved = torch.empty_like(x), x.new_empty((2, x.shape[1]))
        tensors = _addresses(x, *affine, *running, keep, residual, y, saved)
        _check(self.library.effnet_norm(ctypes.addressof(shape), *tensors, _threads()))
        return y, saved

    def norm_backward(
        self,
        shape: NormShape,
        x: Tensor,
        grad: Tensor,
        affine: tuple[Tensor, Tensor],
        saved: Tensor,
        keep: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of input, gamma and beta; that of the residual is ``grad`` itself."""
        dx, dgamma, dbeta = torch.empty_like(x), torch.empty_like(affine[0]), torch.empty_like(affine[1])
        tensors = _addresses(x, grad, *affine, saved, keep, dx, dgamma, dbeta)
        _check(self.library.effnet_norm_backward(ctypes.addressof(shape), *tensors, _threads()))
        return dx, dgamma, dbeta

    def reduce(self, x: Tensor, other: Tensor | None, factor: float) -> Tensor:
        """Sums ``x [N, C, H, W]``, or ``x * other``, over pixels and multiplies by ``factor``: ``[N, C]``."""
        images, channels, height, width = x.shape
        out = x.new_empty((images, channels))
        self.library.effnet_reduce(
            *_addresses(x, other), factor, out.data_ptr(), images, height * width, channels, _threads()
        )
        return out

    def scale(self, x: Tensor, factor: Tensor, shift: Tensor | None) -> Tensor:
        """Returns ``x * factor + shift``; factor and shift are ``[N, C]``."""
        images, channels, height, width = x.shape
        out = torch.empty_like(x)
        self.library.effnet_scale(*_addresses(x, factor, shift, out), images, height * width, channels, _threads())
        return out

    def gate(self, x: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Computes squeeze-and-excitation of ``x [N, C, H, W]`` with small weights.

        Args:
            x: Input.
            weights: Weights ``[S, C]`` and bias of the reduction, weights ``[C, S]`` and bias of the expansion.

        Returns:
            The output, and small tensors for ``gate_backward``.
        """
        images, channels, height, width = x.shape
        squeezed = weights[0].shape[0]
        y, saved = torch.empty_like(x), x.new_empty(images * (2 * channels + squeezed))
        shape = (images, height * width, channels, squeezed)
        _check(self.library.effnet_gate(*_addresses(x, *weights, y, saved), *shape, _threads()))
        return y, saved

    def gate_backward(
        self, x: Tensor, grad: Tensor, reduce: Tensor, expand: Tensor, saved: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Returns the gradients of input and weights."""
        images, channels, height, width = x.shape
        squeezed = reduce.shape[0]
        dx = torch.empty_like(x)
        # One allocation for both biases: their views are added to the gradients of the parameters.
        dreduce, dexpand, biases = torch.empty_like(reduce), torch.empty_like(expand), x.new_empty(squeezed + channels)
        outputs = (dx, dreduce, biases, dexpand)
        tensors = _addresses(x, grad, reduce, expand, saved, *outputs)
        shape = (images, height * width, channels, squeezed)
        _check(self.library.effnet_gate_backward(*tensors, biases[squeezed:].data_ptr(), *shape, _threads()))
        return dx, (dreduce, biases[:squeezed], dexpand, biases[squeezed:])

    def rmsprop(self, update: RMSProp, size: int) -> None:
        """Updates ``size`` weights and their state in place."""
        self.library.effnet_rmsprop(ctypes.addressof(update), size, _threads())

    def standardize(self, pixels: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Returns ``(pixels - mean) / deviation`` of contiguous uint8 ``[..., 3]``, rounded as by torch."""
        out = torch.empty(pixels.shape)
        addresses = _addresses(pixels, mean, deviation, out)
        self.library.effnet_standardize(*addresses, pixels.numel(), _threads())
        return out

    def use_lanes(self, width: int) -> None:
        """Limits the width of vectors, in floats; 16 is no limit. For tests."""
        self.library.effnet_use_lanes(_INT(width))


@lru_cache(maxsize=1)
def load() -> Layers | None:
    """Returns the library, or None if it was not built or does not load."""
    for suffix in EXTENSION_SUFFIXES:
        for path in sorted(Path(__file__).parent.glob(f"_layers*{suffix}")):
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                return None
            library.effnet_use_team(_team())
            return Layers(library)
    return None


def are_plain(tensors: Iterable[Tensor]) -> bool:
    """Whether all tensors are float32 in contiguous memory of the CPU."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)


def _team() -> ctypes.c_void_p | None:
    """Returns the function by which torch's OpenMP runtime starts threads; None where it cannot be found."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, _POINTER)
    except (AttributeError, OSError, TypeError):
        return None


def _threads() -> int:
    return torch.get_num_threads()


def _images(x: Tensor, height: int, width: int) -> Tensor:
    """Allocates ``[N, C, height, width]``."""
    return torch.empty((x.shape[0], x.shape[1], height, width), memory_format=torch.channels_last)


def _addresses(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("no memory for a layer's temporary sums")
