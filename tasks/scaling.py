"""Bookkeeping of the scaling study: checks and counts its points, keeps its MLflow run and writes its report part."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from prefect import task

from conf import compose, schema
from infra.errors import ConfigError, PermanentError, first_line
from models.experiments import scaling_study
from models.experiments.scaling_study import PaperScalingRow
from models.results import ShardResult, TrainResult
from tasks import policy
from tasks.jobs import work_key
from tasks.report import results as report_results

# Names, as the paper prints them, of the networks that it scales.
PRINTED = {
    "mobilenetv1_100": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet-50",
    "efficientnet_b0": "EfficientNet-B0",
}
IMAGENET_CLASSES = 1000


@task(task_run_name="points", **policy.BOOKKEEPING)
async def start_scaling(config: schema.Config) -> str:
    """Builds every point once on the meta device, and opens the parent MLflow run.

    Raises:
        ConfigError: No points, or a point that cannot be built; nothing has been trained yet.
    """
    return await asyncio.to_thread(_start, config)


def _start(config: schema.Config) -> str:
    from infra.tracking import runs
    from models.networks.build import build_model

    points = config.scaling.points
    if not points:
        raise ConfigError("scaling.points is empty; use scaling=table3 or scaling=paper")
    for point in points:
        build_model(scaled(config.model, point), IMAGENET_CLASSES, device="meta")
    request = {
        "scaling": compose.to_dict(config.scaling),
        "model": compose.to_dict(config.model),
        "data": compose.to_dict(config.data),
        "recipe": compose.to_dict(config.recipe),
    }
    key = work_key("scaling", request)
    # The points are 50 lines: too many for a parameter, so they are logged as an artifact with the results.
    return runs.start_run(
        config.experiment,
        "scaling study",
        key,
        params={k: request[k] for k in ("model", "data", "recipe")},
        tags={"role": "scaling"},
    )


def scaled(model: schema.Model, point: schema.Point) -> schema.Model:
    """The network of a point: the multipliers of the point times those of the configuration."""
    return replace(
        model,
        name=point.network,
        width=model.width * point.width,
        depth=model.depth * point.depth,
        resolution=model.resolution * point.resolution,
    )


def point_config(config: schema.Config, point: schema.Point) -> schema.Config:
    """The configuration of a point's training."""
    return replace(config, model=scaled(config.model, point))


def title(point: schema.Point) -> str:
    """``resnet50 baseline`` or ``resnet50 compound d1.4 w1.2 r1.3``."""
    letters = (("d", point.depth), ("w", point.width), ("r", point.resolution))
    factors = [f"{letter}{value:g}" for letter, value in letters if value != 1.0]
    return " ".join([point.network, point.dimension, *factors])


@task(task_run_name="record", **policy.BOOKKEEPING)
async def record_scaling(
    config: schema.Config, run: str, shards: ShardResult, results: list[TrainResult | BaseException]
) -> dict[str, Any]:
    """Writes the report part ``scaling`` to the store and to the study's MLflow run.

    Raises:
        TransientError: A service did not respond; the same command resumes.
        EffnetError: No point finished; the error of the first point.
    """
    return await asyncio.to_thread(_record, config, run, shards, results)


def _record(
    config: schema.Config, run: str, shards: ShardResult, results: list[TrainResult | BaseException]
) -> dict[str, Any]:
    from infra.tracking import runs

    # An unreachable store or server is not a failure of one network: it would fail every point.
    transient = [r for r in results if isinstance(r, BaseException) and not isinstance(r, PermanentError)]
    failed = [r for r in results if isinstance(r, BaseException)]
    if transient or len(failed) == len(results):
        runs.finish_run(run, "FAILED", {})
        raise (transient or failed)[0]
    urls = [runs.run_url(r.mlflow_run) if isinstance(r, TrainResult) else None for r in results]
    part = report_results.publish_part(
        config, "scaling", facts(config, shards, results, urls), report_results.digests([shards])
    )
    runs.log_text(run, json.dumps(part, indent=1), "scaling.json")
    numbers = {
        f"{title(p)} top1".replace(" ", "_"): r.top1
        for p, r in zip(config.scaling.points, results, strict=True)
        if isinstance(r, TrainResult)
    }
    runs.finish_run(run, "FAILED" if failed else "FINISHED", numbers)
    return part


def facts(
    config: schema.Config, shards: ShardResult, results: list[TrainResult | BaseException], urls: list[str | None]
) -> dict[str, Any]:
    """Every point with its size, its accuracy (null if it failed) and the values that the paper prints.

    Args:
        config: Configuration with the points and the base multipliers.
        shards: The data set that the points were trained on.
        results: Results in the order of the points.
        urls: URLs of the MLflow runs of the points.
    """
    points, missing = [], []
    for point, result, url in zip(config.scaling.points, results, urls, strict=True):
        points.append(_point_row(config.model, point, result, shards.classes) | {"mlflow_url": url})
        if isinstance(result, BaseException):
            missing.append(f"{title(point)}: {first_line(result)}")
    return {
        "data": shards.name,
        "points": points,
        "found": sum(r.reused for r in results if isinstance(r, TrainResult)),
        "missing": missing,
        "command": f"effnet scaling profile={config.profile}",
    }


def _point_row(
    model: schema.Model, point: schema.Point, result: TrainResult | BaseException, classes: int
) -> dict[str, Any]:
    from models.networks.build import compute_cost

    params, multiply_adds, resolution_px = compute_cost(scaled(model, point), classes)
    accuracy = {key: getattr(result, key, None) for key in ("top1", "top5", "n_val")}
    multipliers = {key: getattr(point, key) for key in ("network", "dimension", "width", "depth", "resolution")}
    size = {"params": params, "multiply_adds": multiply_adds, "resolution_px": resolution_px}
    return {**multipliers, **size, **accuracy, "paper": _paper(point)}


def _paper(point: schema.Point) -> dict[str, Any]:
    """The same point at the paper's size: computed and printed values."""
    from models.networks.build import compute_cost

    _, multiply_adds, _ = compute_cost(scaled(schema.Model(), point), IMAGENET_CLASSES)
    row = printed(point)
    return {
        "multiply_adds": multiply_adds,
        "printed_flops": None if row is None else round(row.flops_b * 1e9),
        "top1": None if row is None else row.top1,
        "source": source(point),
    }


def printed(point: schema.Point) -> PaperScalingRow | None:
    """The row of Table 3 or 7 that matches a point. A multiplier that a row does not print matches any value."""
    return next((row for row in (*scaling_study.TABLE3, *scaling_study.TABLE7) if _matches(row, point)), None)


def _matches(row: PaperScalingRow, point: schema.Point) -> bool:
    pairs = ((row.depth, point.depth), (row.width, point.width), (row.resolution, point.resolution))
    same = all(printed_value in (None, value) for printed_value, value in pairs)
    return same and (row.base, row.method) == (PRINTED.get(point.network), point.dimension)


def source(point: schema.Point) -> str | None:
    """Table or figure of the paper that shows a point, else None."""
    if (row := printed(point)) is not None:
        return "Table 3" if row in scaling_study.TABLE3 else "Table 7"
    if PRINTED.get(point.network) != "EfficientNet-B0" or point.dimension == "baseline":
        return None
    if point.dimension == "compound":
        return "Figure 8"
    scales = {key: getattr(point, key) for key in ("width", "depth", "resolution")}
    single = all(value == 1.0 for key, value in scales.items() if key != point.dimension)
    if single and scales[point.dimension] in [label for label, _ in scaling_study.FIGURE3[point.dimension]]:
        return "Figure 3"
    if point.dimension == "width" and (point.depth, point.resolution) in scaling_study.FIGURE4[1:]:
        return "Figure 4"
    return None
