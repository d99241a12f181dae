"""Decodes images into square pixels of a batch: crop, resize, flip and augment.

Of three backends the best available is used: "native", effnet's C code (decodes only what the box needs); "simplejpeg",
that package with torch's resize; "pillow". Images that a fast backend does not support (CMYK, PNG, damaged files ...)
fall back to Pillow individually: so Pillow decides what decodes, and pixels equal Pillow's within the decibels stated
in tests/unit/models/data/loading/test_decode.py. The resize is Pillow's antialiased bicubic, always horizontal first:
Pillow 13 chooses the order by the shape of the box, and rounding between the passes would make the backends differ
where values overshoot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf.data_set import BICUBIC, BILINEAR
from infra.errors import ConfigError, DataError
from models.data.loading import native
from models.data.loading.pillow_ops import apply_pillow
from models.data.shards.images import MAX_PIXELS, open_image

if TYPE_CHECKING:
    from models.data.loading.auto_augment import Ops

BACKENDS = ("native", "simplejpeg", "pillow")  # best first
_SIMPLE_SPACES = ("RGB", "YCbCr", "Gray")
Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class DecodeError(DataError):
    """An image of a chunk does not decode, or is smaller than its box."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"image {index} of the chunk: {reason}")
        self.index = index
        self.reason = reason


def fill(
    out: Pixels,
    blobs: Sequence[bytes],
    boxes: NDArray[np.int32],
    flips: NDArray[np.bool_],
    ops: Ops | None = None,
    backend: str | None = None,
    interpolation: str = BICUBIC,
) -> None:
    """Decodes n images into ``out``, releasing the GIL where the backend can.

    Args:
        out: ``[n, S, S, 3]``, C-contiguous; overwritten.
        blobs: Encoded images, n of them.
        boxes: ``[n, 4]`` left, top, right, bottom inside each image; pixels outside have no influence.
        flips: ``[n]`` horizontal flips, after the resize.
        ops: Augmentations, applied last, in order.
        backend: One of ``BACKENDS``; by default the best available. Only Pillow resizes bilinearly, whatever is given.
        interpolation: Bicubic or bilinear, antialiased.

    Raises:
        DecodeError: for the first image that does not decode, or whose header gives a size too small for the box.
        ConfigError: the backend is not available.
    """
    n, side = len(blobs), out.shape[1] if out.ndim == 4 else 0
    if out.shape != (n, side, side, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous or side == 0:
        raise ValueError(f"out must be C-contiguous uint8 [{n}, S, S, 3], is {out.dtype} {list(out.shape)}")
    if boxes.shape != (n, 4) or flips.shape != (n,) or (ops is not None and len(ops.codes) != n):
        raise ValueError(f"{n} blobs, but boxes {list(boxes.shape)}, flips {list(flips.shape)} or other ops")
    name = "pillow" if interpolation == BILINEAR else backend or _find_best_backend()
    if (reason := backends().get(name, "no such backend")) != "ok":
        raise ConfigError(f"decoding with {name!r} is not available: {reason}")
    square = _bilinear_square if interpolation == BILINEAR else _SQUARES[name]
    remaining: Sequence[int] = range(n)
    if name == "native":
        status, header_sizes = native.load().fill(out, blobs, boxes, flips, ops)
        remaining = np.flatnonzero(status != native.DONE).tolist()
    for index in remaining:
        if name == "native" and status[index] == native.OUTSIDE:
            raise DecodeError(index, _describe_outside(_box(boxes, index), header_sizes[index].tolist()))
        try:
            resized = square(blobs[index], _box(boxes, index), side)
        except DataError as error:
            raise DecodeError(index, str(error)) from error
        out[index] = resized[:, ::-1] if flips[index] else resized
        if ops is not None and ops.codes[index].any():
            out[index] = _augment(out[index], ops.codes[index], ops.args[index])


def backend() -> str:
    """Returns the best available backend."""
    return _find_best_backend()


def backends() -> dict[str, str]:
    """Status of every backend, best first: "ok", or why it is not available."""
    return dict(_check_backends())


@lru_cache(maxsize=1)
def _find_best_backend() -> str:
    return next(name for name, state in _check_backends() if state == "ok")


@lru_cache(maxsize=1)
def _check_backends() -> tuple[tuple[str, str], ...]:
    checks: tuple[Callable[[], object], ...] = (native.load, _import_simplejpeg, lambda: None)
    states = []
    for name, check in zip(BACKENDS, checks, strict=True):
        try:
            check()
            states.append((name, "ok"))
        except (OSError, ImportError) as error:
            states.append((name, str(error)))
    return tuple(states)


def _import_simplejpeg() -> None:
    import simplejpeg  # noqa: F401


def _pillow_square(data: bytes, box: Box, side: int) -> Pixels:
    return _resize(data, box, side, Image.Resampling.BICUBIC)


def _bilinear_square(data: bytes, box: Box, side: int) -> Pixels:
    return _resize(data, box, side, Image.Resampling.BILINEAR)


def _resize(data: bytes, box: Box, side: int, resampling: Image.Resampling) -> Pixels:
    image = open_image(data)
    _require_inside(box, image.width, image.height)
    crop = image.crop(box)
    wide = crop.resize((side, crop.height), resampling)
    return np.asarray(wide.resize((side, side), resampling))


def _simplejpeg_square(data: bytes, box: Box, side: int) -> Pixels:
    import simplejpeg
    import torch

    try:  # strict: Pillow decides on files that only cause warnings
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in _SIMPLE_SPACES or width * height > MAX_PIXELS:
            return _pillow_square(data, box, side)
        full = torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:
        return _pillow_square(data, box, side)
    _require_inside(box, width, height)
    crop = full[box[1] : box[3], box[0] : box[2]].permute(2, 0, 1)[None]
    square = torch.nn.functional.interpolate(crop, (side, side), mode="bicubic", antialias=True)
    pixels: Pixels = square[0].permute(1, 2, 0).numpy()
    return pixels


# "native" falls back to Pillow for unsupported images
_SQUARES = {"native": _pillow_square, "simplejpeg": _simplejpeg_square, "pillow": _pillow_square}


def _augment(pixels: Pixels, codes: NDArray[np.int32], args: NDArray[np.float32]) -> Pixels:
    image = Image.fromarray(pixels)
    for code, arg in zip(codes.tolist(), args.tolist(), strict=True):
        if code:
            image = apply_pillow(image, code, arg)
    return np.asarray(image)


def _box(boxes: NDArray[np.int32], index: int) -> Box:
    left, top, right, bottom = boxes[index].tolist()
    return left, top, right, bottom


def _require_inside(box: Box, width: int, height: int) -> None:
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise DataError(_describe_outside(box, (width, height)))


def _describe_outside(box: Box, size: Sequence[int]) -> str:
    return f"box {box} does not lie inside the image of {size[0]} x {size[1]} pixels"
