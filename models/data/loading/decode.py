"""Encoded images -> squares of pixels in a batch: a box is cut out, resized, mirrored and augmented.

Three ways, the best that works here is taken: "native", our C code (decodes only what the box needs); "simplejpeg",
that package and torch's resize; "pillow". What one of the fast ways does not take (CMYK, PNG, damaged files ...) goes
to Pillow image by image: so the verdict is Pillow's, and the pixels too, to the decibel that
tests/unit/models/data/loading/test_decode.py states. The resize is Pillow's antialiased bicubic, always horizontally
first: Pillow 13 itself chooses the order by the shape of the box, and the rounding between the passes would make the
ways differ where values overshoot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    """One image of a chunk does not decode, or is smaller than its box."""

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
) -> None:
    """Decodes n images into ``out``, without Python's lock wherever the backend can.

    Args:
        out: ``[n, S, S, 3]``, C-contiguous; overwritten.
        blobs: n encoded images.
        boxes: ``[n, 4]`` left, top, right, bottom inside each image; nothing outside of it has an influence.
        flips: ``[n]`` mirror left and right, after the resize.
        ops: done last, in order.
        backend: one of ``BACKENDS``; the best by default.

    Raises:
        DecodeError: the first image that does not decode, or whose header's size does not hold the box.
        ConfigError: the backend does not work here.
    """
    n, side = len(blobs), out.shape[1] if out.ndim == 4 else 0
    if out.shape != (n, side, side, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous or side == 0:
        raise ValueError(f"out must be C-contiguous uint8 [{n}, S, S, 3], is {out.dtype} {list(out.shape)}")
    if boxes.shape != (n, 4) or flips.shape != (n,) or (ops is not None and len(ops.codes) != n):
        raise ValueError(f"{n} blobs, but boxes {list(boxes.shape)}, flips {list(flips.shape)} or other ops")
    name = _best() if backend is None else backend
    if (reason := backends().get(name, "no such backend")) != "ok":
        raise ConfigError(f"decoding with {name!r} does not work here: {reason}")
    rest: Sequence[int] = range(n)
    if name == "native":
        status, found = native.load().fill(out, blobs, boxes, flips, ops)
        rest = np.flatnonzero(status != native.DONE).tolist()
    for index in rest:
        if name == "native" and status[index] == native.OUTSIDE:
            raise DecodeError(index, _outside(_box(boxes, index), found[index].tolist()))
        try:
            resized = _SQUARES[name](blobs[index], _box(boxes, index), side)
        except DataError as error:
            raise DecodeError(index, str(error)) from error
        out[index] = resized[:, ::-1] if flips[index] else resized
        if ops is not None and ops.codes[index].any():
            out[index] = _augmented(out[index], ops.codes[index], ops.args[index])


def backend() -> str:
    """The best backend that works here."""
    return _best()


def backends() -> dict[str, str]:
    """Each backend, best first: "ok", or why it does not work here."""
    return dict(_backends())


@lru_cache(maxsize=1)
def _best() -> str:
    return next(name for name, state in _backends() if state == "ok")


@lru_cache(maxsize=1)
def _backends() -> tuple[tuple[str, str], ...]:
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
    image = open_image(data)
    _require_inside(box, image.width, image.height)
    part = image.crop(box)
    wide = part.resize((side, part.height), Image.Resampling.BICUBIC)
    return np.asarray(wide.resize((side, side), Image.Resampling.BICUBIC))


def _simplejpeg_square(data: bytes, box: Box, side: int) -> Pixels:
    import simplejpeg
    import torch

    try:  # strict: what it only warns about, Pillow judges
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in _SIMPLE_SPACES or width * height > MAX_PIXELS:
            return _pillow_square(data, box, side)
        full = torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:
        return _pillow_square(data, box, side)
    _require_inside(box, width, height)
    part = full[box[1] : box[3], box[0] : box[2]].permute(2, 0, 1)[None]
    square = torch.nn.functional.interpolate(part, (side, side), mode="bicubic", antialias=True)
    pixels: Pixels = square[0].permute(1, 2, 0).numpy()
    return pixels


# "native" leaves to Pillow what it does not take
_SQUARES = {"native": _pillow_square, "simplejpeg": _simplejpeg_square, "pillow": _pillow_square}


def _augmented(pixels: Pixels, codes: NDArray[np.int32], args: NDArray[np.float32]) -> Pixels:
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
        raise DataError(_outside(box, (width, height)))


def _outside(box: Box, size: Sequence[int]) -> str:
    return f"box {box} does not lie inside the image of {size[0]} x {size[1]} pixels"
