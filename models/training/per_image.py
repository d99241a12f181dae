"""Which images of a split a network classified correctly: one bit per image, in the order of the sample ids.

Two networks evaluated on the same images can be compared image by image, which needs far fewer images than comparing
two accuracies. The bits are stored in the job's run folder; the result holds their digest.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra import store
from infra.errors import NotFoundError

VAL_CORRECT = "val_correct.bin"  # numpy.packbits of val
MINIVAL_CORRECT = "minival_correct.bin"  # of minival, by the selected weights
log = logging.getLogger("effnet")


def pack(correct: NDArray[np.bool_]) -> bytes:
    """Returns the bits as bytes."""
    return np.packbits(correct).tobytes()


def unpack(data: bytes, total: int) -> NDArray[np.bool_]:
    """Returns the bits of ``total`` images, ``[total]``."""
    return np.unpackbits(np.frombuffer(data, np.uint8), count=total).astype(np.bool_)


def write(job_uri: str, correct: NDArray[np.bool_], name: str = VAL_CORRECT) -> str:
    """Writes the bits of val, or of minival, to a run folder; returns their sha256 for the result."""
    data = pack(correct)
    store.write(store.join(job_uri, name), data)
    return hashlib.sha256(data).hexdigest()


def read(job_uri: str, result: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Reads which val images a job's network classified correctly, as ``[images]``; None if damaged or not stored.

    Args:
        job_uri: Run folder of a training or evaluation job.
        result: The job's ``result.json``.
    """
    return _read(job_uri, VAL_CORRECT, result.get("correct_sha256"), sum(result.get("class_total", ())))


def read_minival(job_uri: str, result: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Like ``read``, for minival and a training job."""
    return _read(job_uri, MINIVAL_CORRECT, result.get("minival_correct_sha256"), result["n_minival"])


def _read(job_uri: str, name: str, sha256: str | None, total: int) -> NDArray[np.bool_] | None:
    uri = store.join(job_uri, name)
    if not sha256:
        return None
    try:
        data = store.read(uri)
    except NotFoundError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256 or len(data) != -(-total // 8):
        log.warning("%s is damaged and not used", uri)
        return None
    return unpack(data, total)
