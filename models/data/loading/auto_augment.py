"""Samples augmentation operations for training images from the tables of ``policies.py``.

A pure function of the given uniforms, so an image is augmented identically on every rank and thread. No pixels are
touched here: ``decode.fill`` applies ``Ops`` right after the resize and the flip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from conf import schema
from models.data.loading.policies import IMAGENET, RANDAUGMENT, RANGES, SIGNED, V0, Op, Policy, magnitude

__all__ = ["Op", "Ops", "draws", "sample_ops"]

_TABLES: dict[str, Policy] = {"v0": V0, "imagenet": IMAGENET}
_PAIR_DRAWS = 5  # pair; apply or not, twice; sign, twice
_LAYER_DRAWS = 4  # operation; sign; center x, y of a cutout


@dataclass(frozen=True)
class Ops:
    """K operations for each of N images, applied in this order."""

    codes: NDArray[np.int32]  # [N, K], of Op; 0 = nothing
    args: NDArray[np.float32]  # [N, K, 3]: value (degrees, factor, pixels, ...; already signed); cutout: center x, y


@dataclass(frozen=True)
class _Table:
    """Operation pairs of a policy as arrays."""

    codes: NDArray[np.int32]  # [pairs, 2]
    probs: NDArray[np.float64]  # [pairs, 2]
    values: NDArray[np.float32]  # [pairs, 2], without sign
    signed: NDArray[np.bool_]  # [pairs, 2]


def draws(augment: schema.Augment) -> int:
    """Number of uniforms that ``sample_ops`` needs per image."""
    if augment.policy == "none":
        return 0
    return augment.randaugment_layers * _LAYER_DRAWS if augment.policy == "randaugment" else _PAIR_DRAWS


def sample_ops(augment: schema.Augment, u: NDArray[np.float64], side: int) -> Ops | None:
    """Samples the operations for N images; None if the policy is "none".

    Args:
        augment: Policy, with layers and magnitude for RandAugment.
        u: Uniforms ``[N, draws(augment)]`` in [0, 1).
        side: Side of the training image in pixels.

    Source: tensorflow/tpu, models/official/efficientnet/autoaugment.py: a pair is drawn uniformly, each of its two
        operations is applied with its own probability, signs are plus or minus with equal probability
        (``build_and_apply_nas_policy``, ``_apply_func_with_prob``, ``_randomly_negate_tensor``); RandAugment draws an
        operation per layer and always applies it (``distort_image_with_randaugment``).
    """
    if augment.policy == "none":
        return None
    if augment.policy == "randaugment":
        return _sample_layers(augment, u.reshape(len(u), augment.randaugment_layers, _LAYER_DRAWS), side)
    table = _build_table(augment.policy, side)
    pair = (u[:, 0] * len(table.codes)).astype(np.int64)
    codes = np.where(u[:, 1:3] < table.probs[pair], table.codes[pair], np.int32(Op.NOTHING))
    args = np.zeros((len(u), 2, 3), np.float32)
    args[:, :, 0] = np.where(table.signed[pair] & (u[:, 3:5] < 0.5), -table.values[pair], table.values[pair])
    return Ops(codes, args)


def _sample_layers(augment: schema.Augment, u: NDArray[np.float64], side: int) -> Ops:
    """Samples RandAugment operations; ``u`` is ``[N, layers, 4]``."""
    ranges, level = RANGES["randaugment"], augment.randaugment_magnitude
    values = np.array([magnitude(op, level, ranges, side) for op in RANDAUGMENT], np.float32)
    signed = np.array([op in SIGNED for op in RANDAUGMENT])
    choice = (u[:, :, 0] * len(RANDAUGMENT)).astype(np.int64)
    codes = np.array(RANDAUGMENT, np.int32)[choice]
    args = np.zeros((*choice.shape, 3), np.float32)
    args[:, :, 0] = np.where(signed[choice] & (u[:, :, 1] < 0.5), -values[choice], values[choice])
    args[:, :, 1:] = np.where((codes == Op.CUTOUT)[:, :, None], np.floor(u[:, :, 2:] * side), 0.0)
    return Ops(codes, args)


@lru_cache(maxsize=16)
def _build_table(policy: str, side: int) -> _Table:
    pairs, ranges = _TABLES[policy], RANGES[policy]
    return _Table(
        codes=np.array([[op for op, _, _ in pair] for pair in pairs], np.int32),
        probs=np.array([[prob for _, prob, _ in pair] for pair in pairs]),
        values=np.array([[magnitude(op, level, ranges, side) for op, _, level in pair] for pair in pairs], np.float32),
        signed=np.array([[op in SIGNED for op, _, _ in pair] for pair in pairs]),
    )
