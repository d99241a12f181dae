"""Which images of a split a network got right: one bit an image, in the order of the sample ids.

Two networks that answered the same images can be compared image by image, which needs far fewer images than a
comparison of two accuracies. The bits lie in the job's run folder; the result holds their digest.
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
log = logging.getLogger("effnet")


def write(job_uri: str, correct: NDArray[np.bool_]) -> str:
    """Writes the bits of val into a run folder; returns their sha256 for the result."""
    data = np.packbits(correct).tobytes()
    store.write(store.join(job_uri, VAL_CORRECT), data)
    return hashlib.sha256(data).hexdigest()


def read(job_uri: str, result: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """``[images of val]``: what a job's network got right; None where that is damaged or was not kept.

    Args:
        job_uri: run folder of a training or an evaluation.
        result: its ``result.json``.
    """
    sha256, total = result.get("correct_sha256"), sum(result.get("class_total", ()))
    uri = store.join(job_uri, VAL_CORRECT)
    if not sha256:
        return None
    try:
        data = store.read(uri)
    except NotFoundError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256 or len(data) != -(-total // 8):
        log.warning("%s is damaged: val is evaluated again", uri)
        return None
    return np.unpackbits(np.frombuffer(data, np.uint8), count=total).astype(np.bool_)
