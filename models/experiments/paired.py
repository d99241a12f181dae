"""What the comparisons of experiments have in common: networks are compared on the same images, over the same seeds.

With ``data.folds`` the seeds run over the folds, so seeds of different folds are tested on different images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from models.results import ShardResult
from models.statistics import PairedTest, compare_folds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
SIGNIFICANT = 0.05  # two networks are distinguished up to this p, over all comparisons of a table


def stack_answers(jobs: Sequence[str], answers: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    """Returns which images the seeds of a network classified correctly, ``[seeds, images]``.

    Args:
        jobs: Jobs of the seeds, in order.
        answers: The images of each job, ``[images]``.

    Returns:
        None if a job has no answers, as those that predate them.
    """
    import numpy as np

    rows = [answers[job] for job in jobs if job in answers]
    return np.stack(rows) if len(rows) == len(jobs) else None


def stack_by_fold(
    jobs: Sequence[str], answers: Mapping[str, NDArray[np.bool_]], shards: Sequence[ShardResult]
) -> list[NDArray[np.bool_]] | None:
    """As ``stack_answers``, for each fold: ``[seeds, images]``; ``shards`` are those of each job."""
    stacked = [stack_answers(group, answers) for group in group_by_fold(jobs, shards)]
    whole = [fold for fold in stacked if fold is not None]
    return whole if len(whole) == len(stacked) else None


def group_by_fold(values: Sequence[T], shards: Sequence[ShardResult]) -> list[list[T]]:
    """Returns values of each seed by fold, in the order of the folds' first seeds; ``shards`` are those of each seed.

    The folds of a set with its own val have the same shards, so they are one.
    """
    groups: dict[str, list[T]] = {}
    for value, of in zip(values, shards, strict=True):
        groups.setdefault(of.manifest_sha256, []).append(value)
    return list(groups.values())


def mean_over_images(top1: Sequence[float], shards: Sequence[ShardResult]) -> float:
    """Mean accuracy of seeds, in which every image of every fold has the same weight; ``shards`` are of each seed."""
    images = [group[0].val for group in group_by_fold(shards, shards)]
    means = [sum(group) / len(group) for group in group_by_fold(top1, shards)]
    return sum(mean * (n / sum(images)) for mean, n in zip(means, images, strict=True))


def count_tested(shards: Sequence[ShardResult]) -> int:
    """Number of images on which any of the seeds is tested."""
    return sum(group[0].val for group in group_by_fold(shards, shards))


def compare_seeds(
    ours: Sequence[NDArray[np.bool_]], theirs: Sequence[NDArray[np.bool_]], shards: Sequence[ShardResult]
) -> PairedTest:
    """Compares two networks by their answers in each fold, ``[seeds, images]``; ``shards`` are those of each seed."""
    return compare_folds(ours, theirs, max(of.val / max(1, of.train) for of in shards))


def describe_lead(first: str, second: str, lead: PairedTest, comparisons: int) -> str:
    """``compound beats depth (+1.20 points, +0.30 to +2.10, p 0.01)``; at 5 % over that many comparisons."""
    if lead.p > SIGNIFICANT / comparisons:
        verb = "is not distinguished from"
    else:
        verb = "beats" if lead.value > 0 else "loses to"
    return f"{first} {verb} {second} ({format_interval(lead)})"


def format_interval(test: PairedTest) -> str:
    """``+0.40 points, -0.62 to +1.42, p 0.54``."""
    p = "p < 0.001" if test.p < 0.001 else f"p {test.p:.2g}"
    return f"{test.value:+.2f} points, {test.lower:+.2f} to {test.upper:+.2f}, {p}"
