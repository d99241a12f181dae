"""What a source of images is: the listing of its images, and how to read the bytes of one.

Every opener (``imagenet.py``, ``cifar.py``, ...) returns a ``Source``; ``sources.py`` chooses among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAIN, MINIVAL, VAL = 0, 1, 2  # what Source.split holds


@dataclass(frozen=True)
class Source:
    """An indexed set of N labelled, encoded images, in an order that is the same on every machine.

    Attributes:
        classes: names by label.
        labels: ``[N]`` int32.
        split: ``[N]`` int8. TRAIN (minival is cut from it, and val too where ``own_val`` is False), MINIVAL
            (an official validation part), VAL (the official val or test part).
        own_val: the set has a val or test part of its own.
        names: ``[N]`` bytes, the official name of each image, e.g. ``b"n01440764_10026.JPEG"``.
        sizes: ``[N]`` int64, bytes of each encoded image; 0 where it is made on the fly.
        read: index -> encoded JPEG or PNG bytes; many threads may call it. ``DataError`` where the bytes
            are not there.
        digest: sha256 of the listing; part of the key of the shards. An archive and the tree that was
            extracted from it have the same.
        missing: with ``allow_partial``, one line for each count that is not the official one.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    split: NDArray[np.int8]
    own_val: bool
    names: NDArray[np.bytes_]
    sizes: NDArray[np.int64]
    read: Callable[[int], bytes]
    digest: str
    missing: tuple[str, ...] = ()


def digest_of(
    classes: Sequence[str],
    labels: NDArray[np.int32],
    split: NDArray[np.int8],
    names: NDArray[np.bytes_],
    sizes: NDArray[np.int64],
    content: bytes = b"",
) -> str:
    """sha256 of a listing; ``content`` stands for pixels that no size tells apart."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    columns = (labels.astype("<i4"), split.astype("<i1"), sizes.astype("<i8"))
    for part in (*(column.tobytes() for column in columns), b"\n".join(names.tolist()), content):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
