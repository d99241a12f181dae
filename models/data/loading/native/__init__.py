"""effnet's C code, called through ctypes, which releases the GIL for the whole call.

The library is built at install (``setup.py``) and opens a libjpeg at first use: the one in Pillow's wheel,
else the system's. It is used only if a self-test decodes an image as Pillow does.
"""

from __future__ import annotations

import ctypes
import io
import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from models.data.loading.auto_augment import Ops

DONE, NOT_OURS, OUTSIDE = 0, 1, 2  # jpeg.h
SYSTEM = ("libjpeg.so.62", "libjpeg.62.dylib")
ENOUGH_DB = 50.0  # PSNR against Pillow; the resize reaches 60 and more
_LOCK = threading.Lock()
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


class Native:
    """The loaded C library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.effnet_fill.argtypes = [ctypes.c_int64, *[_POINTER] * 4, _INT, _POINTER, _INT, *[_POINTER] * 4]
        library.effnet_entropy_decode.argtypes = [_POINTER, ctypes.c_int64]

    def fill(
        self,
        out: NDArray[np.uint8],
        blobs: Sequence[bytes],
        boxes: NDArray[np.int32],
        flips: NDArray[np.bool_],
        ops: Ops | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Decodes JPEGs of the common kinds into ``out [n, S, S, 3]``; the caller handles the others.

        Returns:
            ``[n]`` DONE, NOT_OURS (unsupported or not an image) or OUTSIDE (the box is not inside the image), and
            ``[n, 2]`` width and height from the header, where it was read.
        """
        n, side = out.shape[:2]
        data = [np.frombuffer(blob, np.uint8) for blob in blobs]  # arrays that keep the bytes alive
        addresses = np.array([array.__array_interface__["data"][0] for array in data], np.uintp)
        sizes = np.array([array.size for array in data], np.int64)
        boxes, flips = np.ascontiguousarray(boxes, np.int32), np.ascontiguousarray(flips, np.uint8)
        codes = None if ops is None else np.ascontiguousarray(ops.codes, np.int32)
        args = None if ops is None else np.ascontiguousarray(ops.args, np.float32)
        status, sizes_out = np.zeros(n, np.int32), np.zeros((n, 2), np.int32)
        failed = self.library.effnet_fill(
            n,
            _address(addresses),
            _address(sizes),
            _address(boxes),
            _address(flips),
            side,
            _address(out),
            0 if codes is None else codes.shape[1],
            _address(codes),
            _address(args),
            _address(status),
            _address(sizes_out),
        )
        if failed:
            raise MemoryError(f"no memory to decode {n} images of {side} x {side}")
        return status, sizes_out

    def entropy_decode(self, blob: bytes) -> bool:
        """Runs only the Huffman decoding of a JPEG, the unavoidable part; returns whether it is one. For benchmarks."""
        data = np.frombuffer(blob, np.uint8)
        return bool(self.library.effnet_entropy_decode(_address(data), data.size) == DONE)

    def use_vectors(self, bits: int) -> None:
        """Limits vectors to 512 bits (AVX-512, the default), 256 (AVX2) or 0 (plain C): identical bytes. For tests."""
        self.library.effnet_use_vectors(_INT(bits))


def load() -> Native:
    """Returns the library, loaded and tested.

    Raises:
        OSError: the library cannot be used; the message gives the reason.
    """
    with _LOCK:  # several threads may call first
        library = _load_once()
    if isinstance(library, str):
        raise OSError(library)
    return library


@lru_cache(maxsize=1)
def _load_once() -> Native | str:
    built = [path for suffix in EXTENSION_SUFFIXES for path in sorted(Path(__file__).parent.glob(f"_effnet*{suffix}"))]
    if not built:
        return "not built: no C compiler at install; install one, then run pip install again"
    try:
        library = ctypes.CDLL(str(built[0]))
    except OSError as error:
        return f"{built[0].name} does not load: {error}"
    reasons = []
    for path in libjpegs():
        reason = ctypes.create_string_buffer(200)
        if library.effnet_open_jpeg(path.encode(), reason, _INT(len(reason))):
            reasons.append(reason.value.decode(errors="replace"))
            continue
        native = Native(library)
        psnr = _self_test(native)
        if psnr >= ENOUGH_DB:
            return native
        reasons.append(f"{path} gives {psnr:.1f} dB against Pillow, below the required {ENOUGH_DB:.0f}")
    return "; ".join(reasons)


def libjpegs() -> list[str]:
    """Lists possible paths of a libjpeg of ABI 62, best first: Pillow's wheels ship libjpeg-turbo 3."""
    package = Path(PIL.__file__).parent
    wheel = [*package.parent.glob("[pP]illow.libs/libjpeg-*.so.62*"), *package.glob(".dylibs/libjpeg.62*.dylib")]
    return [*sorted(map(str, wheel)), *SYSTEM]


def _self_test(native: Native) -> float:
    """Returns the PSNR in dB against Pillow on one image; infinite if equal, 0 if it is not decoded."""
    y, x = np.mgrid[0:64, 0:96]
    picture = np.stack([x * 2, y * 3, (x + y) % 256], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)  # 4:2:0
    box, side = (21, 10, 80, 60), 24
    out = np.zeros((1, side, side, 3), np.uint8)
    boxes, flips = np.array([box], np.int32), np.zeros(1, np.bool_)
    status, _ = native.fill(out, [buffer.getvalue()], boxes, flips, None)
    if status[0] != DONE:
        return 0.0
    expected = Image.open(buffer).crop(box).resize((side, side), Image.Resampling.BICUBIC)
    squared = float(np.mean((out[0].astype(float) - np.asarray(expected, float)) ** 2))
    return 10 * float(np.log10(255**2 / squared)) if squared else float("inf")


def _address(array: NDArray[np.generic] | None) -> int | None:
    return None if array is None else int(array.__array_interface__["data"][0])
