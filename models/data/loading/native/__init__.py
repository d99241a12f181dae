"""Our C code, called through ctypes, which lets go of Python's lock for the whole call.

The library is built at install (``setup.py``) and opens a libjpeg when it is first used: the one inside Pillow's wheel,
else the system's. It is used only after it has decoded a picture as Pillow does.
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
ENOUGH_DB = 50.0  # against Pillow; what the resize reaches is 60 and more
_LOCK = threading.Lock()
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


class Native:
    """The loaded library."""

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
        """Writes what is a JPEG of the common kinds into ``out [n, S, S, 3]``; the rest is left to the caller.

        Returns:
            ``[n]`` DONE, NOT_OURS (another kind of image, or none) or OUTSIDE (the box is not inside the image), and
            ``[n, 2]`` width and height as the header has them, where it was read.
        """
        n, side = out.shape[:2]
        data = [np.frombuffer(blob, np.uint8) for blob in blobs]  # arrays that keep the bytes in place
        addresses = np.array([each.__array_interface__["data"][0] for each in data], np.uintp)
        sizes = np.array([each.size for each in data], np.int64)
        boxes, flips = np.ascontiguousarray(boxes, np.int32), np.ascontiguousarray(flips, np.uint8)
        codes = None if ops is None else np.ascontiguousarray(ops.codes, np.int32)
        args = None if ops is None else np.ascontiguousarray(ops.args, np.float32)
        status, found = np.zeros(n, np.int32), np.zeros((n, 2), np.int32)
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
            _address(found),
        )
        if failed:
            raise MemoryError(f"no memory to decode {n} images of {side} x {side}")
        return status, found

    def entropy_decode(self, blob: bytes) -> bool:
        """Only the Huffman decode of a JPEG, which nobody can avoid; whether it was one. For benchmarks."""
        data = np.frombuffer(blob, np.uint8)
        return bool(self.library.effnet_entropy_decode(_address(data), data.size) == DONE)

    def use_avx2(self, wanted: bool) -> None:
        """False: plain C even where the processor could do better; gives the same bytes. For tests."""
        self.library.effnet_use_avx2(_INT(wanted))


def load() -> Native:
    """The library, ready for use.

    Raises:
        OSError: with the reason why it cannot be used here.
    """
    with _LOCK:  # several threads may ask first
        found = _load_once()
    if isinstance(found, str):
        raise OSError(found)
    return found


@lru_cache(maxsize=1)
def _load_once() -> Native | str:
    built = [path for suffix in EXTENSION_SUFFIXES for path in sorted(Path(__file__).parent.glob(f"_effnet*{suffix}"))]
    if not built:
        return "not built: no C compiler at install; get one, then pip install again"
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
        found = _self_test(native)
        if found >= ENOUGH_DB:
            return native
        reasons.append(f"{path} gives {found:.1f} dB against Pillow, wanted are {ENOUGH_DB:.0f}")
    return "; ".join(reasons)


def libjpegs() -> list[str]:
    """Where a libjpeg of ABI 62 may be, best first: Pillow's wheels ship libjpeg-turbo 3."""
    home = Path(PIL.__file__).parent
    wheel = [*home.parent.glob("[pP]illow.libs/libjpeg-*.so.62*"), *home.glob(".dylibs/libjpeg.62*.dylib")]
    return [*sorted(map(str, wheel)), *SYSTEM]


def _self_test(native: Native) -> float:
    """PSNR in dB between ours and Pillow's on one picture; infinite when equal, 0 when it is not decoded."""
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
