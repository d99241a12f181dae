"""The scaling study at equal counted cost: its multipliers, and its comparisons of ways to scale and of sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from conf import schema
from models.experiments.paired import compare_seeds, describe_lead, stack_by_fold
from models.experiments.scaling_study import network_of
from models.results import ScalingComparison, ScalingPoint, ShardResult, TrainResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EQUAL = 0.05  # costs that differ by no more than this share are equal
_MAX_POWER, _HALVINGS = 8.0, 17  # of the search for a power; the last interval is 6e-5 wide


def match_points(model: schema.Model, options: schema.Scaling, classes: int) -> list[schema.Point]:
    """Returns the points with multipliers that count ``options.equal_cost`` times their baseline's multiply-adds.

    The multipliers of a point are raised to one power, so a single dimension stays single, and compound scaling keeps
    the proportions of its logarithms, as phi does. Channels, repeats and pixels are rounded, so the nearest step is
    taken: it can miss the cost by more than 5 %, in depth above all.
    """
    from models.networks.build import compute_cost

    if options.equal_cost is None:
        return list(options.points)

    def count(point: schema.Point) -> int:
        return compute_cost(network_of(model, point), classes)[1]

    baselines: dict[str, int] = {}
    matched = []
    for point in options.points:
        if point.dimension == "baseline":
            matched.append(point)
            continue
        if point.network not in baselines:
            baselines[point.network] = count(schema.Point(point.network))
        target = options.equal_cost * baselines[point.network]
        below, above = 0.0, _MAX_POWER
        for _ in range(_HALVINGS):
            power = (below + above) / 2
            below, above = (power, above) if count(raise_to(point, power)) <= target else (below, power)
        ends = (raise_to(point, below), raise_to(point, above))
        matched.append(min(ends, key=lambda end: abs(count(end) / target - 1)))
    return matched


def raise_to(point: schema.Point, power: float) -> schema.Point:
    """The point with its multipliers raised to a power."""
    return replace(point, width=point.width**power, depth=point.depth**power, resolution=point.resolution**power)


def compare_points(
    options: schema.Scaling,
    points: Sequence[ScalingPoint],
    results: Sequence[Sequence[TrainResult | BaseException]],
    answers: Mapping[str, NDArray[np.bool_]],
    shards: Sequence[ShardResult],
) -> tuple[tuple[ScalingComparison, ...], tuple[str, ...]]:
    """Compares compound scaling of each network with its single dimensions on the images of val.

    Args:
        options: The study; with ``equal_cost`` all pairs are compared, otherwise those of equal cost.
        points: The points with their counted sizes.
        results: For each point, the result of each seed.
        answers: By job, which images of val it classified correctly, ``[images]``.
        shards: The data set of each seed, with the fold that it was trained on.

    Returns:
        The comparisons, and the verdicts in words: one for each network with compound scaling, then one on accuracy
        against size if several networks of the family are unscaled.
    """
    correct = []
    for seeds in results:
        jobs = [result.job for result in seeds if isinstance(result, TrainResult)]
        correct.append(stack_by_fold(jobs, answers, shards) if len(jobs) == len(seeds) else None)
    comparisons, verdicts = [], []
    for network in dict.fromkeys(point.network for point in points):
        scaled = [(point, bits) for point, bits in zip(points, correct, strict=True) if point.network == network]
        of_network = [
            ScalingComparison(
                network=network,
                dimension=single.dimension,
                compound_top1=compound.top1,
                single_top1=single.top1,
                cost_ratio=single.multiply_adds / compound.multiply_adds,
                lead=None if ours is None or theirs is None else compare_seeds(ours, theirs, shards),
            )
            for compound, ours in scaled
            if compound.dimension == "compound"
            for single, theirs in scaled
            if single.dimension not in ("baseline", "compound")
            if options.equal_cost or _is_equal(single.multiply_adds / compound.multiply_adds)
        ]
        comparisons += of_network
        if any(point.dimension == "compound" for point, _ in scaled):
            verdicts.append(f"{network}: {_verdict(of_network)}")
    if sizes := _compare_sizes(
        [(p, bits) for p, bits in zip(points, correct, strict=True) if p.dimension == "baseline"], shards
    ):
        verdicts.append(f"accuracy against size: {sizes}")
    return tuple(comparisons), tuple(verdicts)


def _compare_sizes(
    baselines: Sequence[tuple[ScalingPoint, list[NDArray[np.bool_]] | None]], shards: Sequence[ShardResult]
) -> str:
    """Compares each network of the family with every smaller one, in words; empty if there is one network or none."""
    family = [(p, bits) for p, bits in baselines if p.network.startswith("efficientnet_b") and bits is not None]
    family.sort(key=lambda member: member[0].multiply_adds)
    pairs = [(larger, smaller) for smaller, larger in combinations(family, 2)]
    return "; ".join(
        describe_lead(larger.network, smaller.network, compare_seeds(ours, theirs, shards), len(pairs))
        for (larger, ours), (smaller, theirs) in pairs
    )


def _is_equal(ratio: float) -> bool:
    return abs(ratio - 1) <= EQUAL


def _verdict(comparisons: Sequence[ScalingComparison]) -> str:
    """What compound scaling did against every single dimension, in words."""
    if not comparisons:
        return (
            f"no single dimension counts within {EQUAL:.0%} of the compound network, so nothing is compared; "
            "scaling=equal_cost compares at equal cost"
        )
    return "; ".join(describe_comparison(comparison, len(comparisons)) for comparison in comparisons)


def describe_comparison(comparison: ScalingComparison, comparisons: int) -> str:
    """``compound beats depth (+1.20 points, +0.30 to +2.10, p 0.01)``; 5 % over all comparisons of the network."""
    lead = comparison.lead
    if lead is None:
        return f"compound and {comparison.dimension} were not compared on the same images"
    unequal = "" if _is_equal(comparison.cost_ratio) else f", which counts {comparison.cost_ratio:.2f} times as much"
    return f"{describe_lead('compound', comparison.dimension, lead, comparisons)}{unequal}"
