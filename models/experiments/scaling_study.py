"""The paper's scaling experiments: Tables 3 and 7 as printed, the settings of Figures 3, 4 and 8, and our points.

The figures plot accuracies without printing them, so only their settings are listed here; the points of Figure 8 at
four times B0's cost are those of Table 7. Source: arXiv 1905.11946v5, as in :mod:`models.paper`. What the paper calls
FLOPS are multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from conf import schema
from infra.errors import ConfigError, first_line
from models.experiments.paired import count_tested, mean_over_images
from models.paper import PRINTED_NAMES
from models.results import ScalingPaper, ScalingPoint, ScalingResult, ShardResult, TrainResult

IMAGENET_CLASSES = 1000
METHODS = ("baseline", "depth", "width", "resolution", "compound")


@dataclass(frozen=True)
class PaperScalingRow:
    """One network scaled by one method.

    Attributes:
        base: The printed name of the network that is scaled.
        method: One of :data:`METHODS`.
        depth: Multiplier; None where the paper does not print it, as ``width`` and ``resolution``.
        flops_b: 1e9 multiply-adds, as printed.
        top1: Percent on ImageNet, as printed.
        counted_b: 1e9 multiply-adds counted for exactly this setting; None where the setting is not printed.
    """

    base: str
    method: str
    depth: float | None
    width: float | None
    resolution: float | None
    flops_b: float
    top1: float
    counted_b: float | None


# Counted with ceil on repeats, channels rounded to 8, input 224 times the multiplier; MobileNetV1's compound row at
# 288 px. ResNet-50 is the one with the stride on the 3x3 convolution. Its printed depth and width rows, 16.2 and
# 14.7 B, count 14.6 and 16.1 B: they look swapped.
_V1, _V2, _R50, _B0 = "MobileNetV1", "MobileNetV2", "ResNet-50", "EfficientNet-B0"
TABLE3: tuple[PaperScalingRow, ...] = (
    PaperScalingRow(_V1, "baseline", 1, 1, 1, 0.6, 70.6, 0.569),
    PaperScalingRow(_V1, "width", 1, 2, 1, 2.2, 74.2, 2.216),
    PaperScalingRow(_V1, "resolution", 1, 1, 2, 2.2, 72.7, 2.272),
    PaperScalingRow(_V1, "compound", 1.4, 1.2, 1.3, 2.3, 75.6, 2.243),
    PaperScalingRow(_V2, "baseline", 1, 1, 1, 0.3, 72.0, 0.301),
    PaperScalingRow(_V2, "depth", 4, 1, 1, 1.2, 76.8, 1.220),
    PaperScalingRow(_V2, "width", 1, 2, 1, 1.1, 76.4, 1.137),
    PaperScalingRow(_V2, "resolution", 1, 1, 2, 1.2, 74.8, 1.199),
    PaperScalingRow(_V2, "compound", None, None, None, 1.3, 77.4, None),
    PaperScalingRow(_R50, "baseline", 1, 1, 1, 4.1, 76.0, 4.089),
    PaperScalingRow(_R50, "depth", 4, 1, 1, 16.2, 78.1, 14.571),
    PaperScalingRow(_R50, "width", 1, 2, 1, 14.7, 77.7, 16.117),
    PaperScalingRow(_R50, "resolution", 1, 1, 2, 16.4, 77.5, 16.351),
    PaperScalingRow(_R50, "compound", None, None, None, 16.7, 78.8, None),
)
# With d = 4, w = 2, r = 2 exactly as printed, the single-dimension rows count 13 to 19 % less than printed. The
# compound row is EfficientNet-B3 (1.827 B at 300 px).
TABLE7: tuple[PaperScalingRow, ...] = (
    PaperScalingRow(_B0, "baseline", 1, 1, 1, 0.4, 77.3, 0.386),
    PaperScalingRow(_B0, "depth", 4, 1, 1, 1.8, 79.0, 1.575),
    PaperScalingRow(_B0, "width", 1, 2, 1, 1.8, 78.9, 1.450),
    PaperScalingRow(_B0, "resolution", 1, 1, 2, 1.9, 79.1, 1.538),
    PaperScalingRow(_B0, "compound", 1.4, 1.2, 1.3, 1.8, 81.1, 1.827),
)

# Figure 3: B0 scaled in one dimension; the labels of its points and their counted multiply-adds (1e9).
FIGURE3: dict[str, tuple[tuple[float, float], ...]] = {
    "width": ((1.0, 0.386), (1.4, 0.744), (1.8, 1.176), (2.6, 2.391), (3.8, 5.060), (5.0, 8.712)),
    "depth": ((1.0, 0.386), (2.0, 0.782), (3.0, 1.179), (4.0, 1.575), (6.0, 2.368), (8.0, 3.161)),
    "resolution": ((1.0, 0.386), (1.3, 0.718), (1.5, 0.893), (1.7, 1.129), (1.9, 1.458), (2.2, 1.923), (2.5, 2.447)),
}
# Figure 4: B0's width is scaled at these (depth, resolution). The text of section 3.3 gives r = 2.0 for the last.
FIGURE4: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.0, 1.3), (2.0, 1.0), (2.0, 1.3))


def check_points(options: schema.Scaling) -> None:
    """Raises a ``ConfigError`` if a study has no points."""
    if not options.points:
        raise ConfigError("scaling.points is empty; use scaling=table3 or scaling=paper")


def scaled(model: schema.Model, depth: float, width: float, resolution: float) -> schema.Model:
    """The configured network with its multipliers scaled by the given factors."""
    return replace(
        model, depth=model.depth * depth, width=model.width * width, resolution=model.resolution * resolution
    )


def network_of(model: schema.Model, point: schema.Point) -> schema.Model:
    """The network of a point: the multipliers of the point times those of the configuration."""
    return scaled(replace(model, name=point.network), point.depth, point.width, point.resolution)


def network_of_entry(model: schema.Model, entry: schema.GalleryEntry) -> schema.Model:
    """The network of an entry of the gallery that names no registered one: its multipliers times those of ``model``."""
    named = replace(model, name=entry.network or model.name)
    return scaled(named, entry.depth, entry.width, entry.resolution)


def title(point: schema.Point, seed: int = 0) -> str:
    """``resnet50 baseline`` or ``resnet50 compound d1.4 w1.2 r1.3``, with ``seed 1`` for the second seed."""
    letters = (("d", point.depth), ("w", point.width), ("r", point.resolution))
    factors = [f"{letter}{value:.4g}" for letter, value in letters if value != 1.0]
    return " ".join([point.network, point.dimension, *factors, *([f"seed {seed}"] if seed else [])])


def summarize(
    config: schema.Config,
    shards: Sequence[ShardResult],
    results: Sequence[Sequence[TrainResult | BaseException]],
    urls: Sequence[str | None],
) -> ScalingResult:
    """Every point with its size, its accuracy (None if a seed failed) and the values that the paper prints.

    Args:
        config: Configuration with the points and the base multipliers.
        shards: The data set of each seed, with the fold that it was trained on.
        results: For each point, in their order, the result of each seed.
        urls: URLs of the MLflow runs of the points.
    """
    points, missing = [], []
    for point, seeds, url in zip(config.scaling.points, results, urls, strict=True):
        points.append(_trained_point(config.model, point, seeds, shards, url))
        errors = [(seed, error) for seed, error in enumerate(seeds) if isinstance(error, BaseException)]
        missing += [f"{title(point, seed)}: {first_line(error)}" for seed, error in errors]
    return ScalingResult(
        data=shards[0].name,
        points=tuple(points),
        found=sum(r.reused for seeds in results for r in seeds if isinstance(r, TrainResult)),
        missing=tuple(missing),
        command=f"effnet scaling profile={config.profile}",
        seeds=config.scaling.seeds,
        equal_cost=config.scaling.equal_cost,
    )


def _trained_point(
    model: schema.Model,
    point: schema.Point,
    seeds: Sequence[TrainResult | BaseException],
    shards: Sequence[ShardResult],
    url: str | None,
) -> ScalingPoint:
    from models.networks.build import compute_cost

    params, multiply_adds, resolution_px = compute_cost(network_of(model, point), shards[0].classes)
    done = [result for result in seeds if isinstance(result, TrainResult)]
    whole = done if len(done) == len(seeds) else []
    return ScalingPoint(
        network=point.network,
        dimension=point.dimension,
        width=point.width,
        depth=point.depth,
        resolution=point.resolution,
        params=params,
        multiply_adds=multiply_adds,
        resolution_px=resolution_px,
        top1=mean_over_images([result.top1 for result in whole], shards) if whole else None,
        top5=mean_over_images([result.top5 for result in whole], shards) if whole else None,
        n_val=count_tested(shards) if whole else None,
        paper=_at_paper_size(point),
        mlflow_url=url,
        seed_top1=tuple(result.top1 for result in whole),
    )


def _at_paper_size(point: schema.Point) -> ScalingPaper:
    """The same point at the paper's size: computed and printed values."""
    from models.networks.build import compute_cost

    _, multiply_adds, _ = compute_cost(network_of(schema.Model(), point), IMAGENET_CLASSES)
    row = printed(point)
    return ScalingPaper(
        multiply_adds=multiply_adds,
        printed_flops=None if row is None else round(row.flops_b * 1e9),
        top1=None if row is None else row.top1,
        source=source(point),
    )


def printed(point: schema.Point) -> PaperScalingRow | None:
    """The row of Table 3 or 7 that matches a point. A multiplier that a row does not print matches any value."""
    return next((row for row in (*TABLE3, *TABLE7) if _matches(row, point)), None)


def _matches(row: PaperScalingRow, point: schema.Point) -> bool:
    pairs = ((row.depth, point.depth), (row.width, point.width), (row.resolution, point.resolution))
    same = all(printed_value in (None, value) for printed_value, value in pairs)
    return same and (row.base, row.method) == (PRINTED_NAMES.get(point.network), point.dimension)


def source(point: schema.Point) -> str | None:
    """Table or figure of the paper that shows a point, else None."""
    if (row := printed(point)) is not None:
        return "Table 3" if row in TABLE3 else "Table 7"
    if PRINTED_NAMES.get(point.network) != "EfficientNet-B0" or point.dimension == "baseline":
        return None
    if point.dimension == "compound":
        return "Figure 8"
    scales = {key: getattr(point, key) for key in ("width", "depth", "resolution")}
    single = all(value == 1.0 for key, value in scales.items() if key != point.dimension)
    if single and scales[point.dimension] in [label for label, _ in FIGURE3[point.dimension]]:
        return "Figure 3"
    if point.dimension == "width" and (point.depth, point.resolution) in FIGURE4[1:]:
        return "Figure 4"
    return None
