"""What a network answered to each image of a split: whether it was correct, and for val the class and its probability.

Two networks evaluated on the same images can be compared image by image, which needs far fewer images than comparing
two accuracies. The bits are stored in the job's run folder, and for val the answers too, 8 bytes per image; the result
holds their digests. All of them are in the order of the sample ids.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra import store
from infra.errors import NotFoundError

VAL_CORRECT = "val_correct.bin"  # numpy.packbits of val
MINIVAL_CORRECT = "minival_correct.bin"  # of minival, by the selected weights
VAL_ANSWERS = "val_answers.npy"  # of ANSWER
ANSWER = np.dtype([("label", "<i4"), ("probability", "<f4")])  # the most probable class of an image
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


def write_answers(job_uri: str, answers: NDArray[np.void]) -> str:
    """Writes the answers to val, ``[images]`` of ``ANSWER``, to a run folder; returns their sha256 for the result."""
    buffer = io.BytesIO()
    np.save(buffer, answers, allow_pickle=False)
    store.write(store.join(job_uri, VAL_ANSWERS), buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def read_answers(job_uri: str, result: Mapping[str, Any]) -> NDArray[np.void] | None:
    """Reads the answers to val, ``[images]`` of ``ANSWER``; None if damaged or not stored, as by older jobs.

    Args:
        job_uri: Run folder of a training or evaluation job.
        result: The job's ``result.json``.
    """
    data = _read_verified(store.join(job_uri, VAL_ANSWERS), result.get("answers_sha256"))
    return None if data is None else np.load(io.BytesIO(data), allow_pickle=False)


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
    data = _read_verified(store.join(job_uri, name), sha256)
    return None if data is None or len(data) != -(-total // 8) else unpack(data, total)


def _read_verified(uri: str, sha256: str | None) -> bytes | None:
    """Reads an object; None if it is missing, or has another digest, which is logged."""
    if not sha256:
        return None
    try:
        data = store.read(uri)
    except NotFoundError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        log.warning("%s is damaged and not used", uri)
        return None
    return data
