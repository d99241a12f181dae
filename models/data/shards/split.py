"""Which images of a source are train, minival and val."""

from __future__ import annotations

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from conf import schema
from models.data.shards.manifest import SPLITS
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source


def split_indices(source: Source, data: schema.Data) -> dict[str, NDArray[np.int64]]:
    """Returns the shuffled source indices of train, minival and val.

    Official splits are kept; but with ``data.minival=cut`` the official validation split joins train, as when
    Flowers-102 or Aircraft is trained on both for its final score. Otherwise minival is a seeded part of train, as
    in the paper (25,022 of 1,281,167), and is never trained on. ``data.limit`` keeps the first images after the
    shuffle.

    The split of an image of a growing set (``Source.content``) is a function of its content and the seed alone: more
    images move none of those that are there, and identical images are in the same split. The shares are then
    expected, not exact. With ``data.folds`` the vals of the folds are disjoint, and together the whole set.
    """
    if source.content is not None:
        return split_by_content(source.split, source.own_val, source.content, data)
    rng = np.random.default_rng(data.seed)
    order = rng.permutation(len(source.labels))[: data.limit]
    if source.own_val:
        val, rest = order[source.split[order] == VAL], order[source.split[order] != VAL]
    elif data.folds > 1:
        first, last = (round(len(order) * fold / data.folds) for fold in (data.fold, data.fold + 1))
        val, rest = order[first:last], np.concatenate([order[:first], order[last:]])
    else:
        n_val = round(len(order) * data.val_share)
        val, rest = order[:n_val], order[n_val:]
    if data.minival == "official" and np.any(source.split == MINIVAL):
        minival, train = rest[source.split[rest] == MINIVAL], rest[source.split[rest] == TRAIN]
    else:
        n_minival = round(len(rest) * data.minival_share)
        minival, train = rest[:n_minival], rest[n_minival:]
    return dict(zip(SPLITS, (train, minival, val), strict=True))


def split_by_content(
    split: NDArray[np.int8], own_val: bool, content: NDArray[np.uint64], data: schema.Data
) -> dict[str, NDArray[np.int64]]:
    """As ``split_indices``: val and minival are the images whose draws lie below the shares."""
    digests = (blake3(b"%d %d" % (data.seed, digest)).digest(24) for digest in content.tolist())
    draws = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 3)
    for_val, for_minival = (draws[:, :2] / 2.0**64).T
    if own_val:
        is_val = split == VAL
    elif data.folds > 1:
        is_val = np.minimum(np.floor(for_val * data.folds), data.folds - 1) == data.fold
    else:
        is_val = for_val < data.val_share
    is_minival = for_minival < data.minival_share
    if data.minival == "official" and np.any(split == MINIVAL):
        is_minival = split == MINIVAL
    order = np.argsort(draws[:, 2], kind="stable")[: data.limit].astype(np.int64)
    val, rest = order[is_val[order]], order[~is_val[order]]
    return dict(zip(SPLITS, (rest[~is_minival[rest]], rest[is_minival[rest]], val), strict=True))
