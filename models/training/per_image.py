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
log = logging.getLogger("effnet")


def write(job_uri: str, correct: NDArray[np.bool_]) -> str:
    """Writes the bits of val to a run folder; returns their sha256 for the result."""
    data = np.packbits(correct).tobytes()
    store.write(store.join(job_uri, VAL_CORRECT), data)
    return hashlib.sha256(data).hexdigest()


def read(job_uri: str, result: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Reads which val images a job's network classified correctly, as ``[images]``; None if damaged or not stored.

    Args:
        job_uri: Run folder of a training or evaluation job.
        result: The job's ``result.json``.
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
        log.warning("%s is damaged: val will be evaluated again", uri)
        return None
    return np.unpackbits(np.frombuffer(data, np.uint8), count=total).astype(np.bool_)
