"""Counter-based random numbers per sample, a function of only (seed, epoch, sample id, draw).

A sample gets the same numbers on every rank, thread and machine, before and after a resume. Hashing a counter, instead
of advancing a generator, gives the numbers of many samples in one array expression.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seed: int, epoch: int, ids: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """Draws numbers in [0, 1), ``[len(ids), draws]``.

    Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014), applied once per key.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is intended
        key = _mix(_mix(np.uint64(seed) + _GOLDEN) + np.uint64(epoch) * _GOLDEN)
        samples = _mix(key + ids.astype(np.uint64)[:, None] * _GOLDEN)
        bits = _mix(samples + np.arange(1, draws + 1, dtype=np.uint64)[None, :] * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    z = np.asarray(z, np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
