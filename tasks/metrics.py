"""Names of metrics in MLflow, whose pages group them by what precedes the slash.

MLflow sorts the groups by name and shows ``system`` on a page for itself, so that no group may precede ``minival``: the
charts of a run begin with its accuracy, then come ``speed``, ``train`` and ``val``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.statistics import interval_95

DESCRIPTION = "mlflow.note.content"  # tag that MLflow shows as the description of a run
EPOCH_METRICS = {  # key in the trainer's metrics.jsonl -> name
    "train_loss": "train/loss",
    "learning_rate": "train/lr",
    "minival_top1": "minival/top1",
    "minival_top5": "minival/top5",
    "minival_loss": "minival/loss",
    "minival_mean_per_class": "minival/mean_per_class",
    "images_per_s": "speed/images_per_s",
    "data_wait": "speed/data_wait",
    "decode_ms": "system/decode_ms",
    "read_mb_per_s": "system/read_mb_per_s",
    "fetch_mb_per_s": "system/fetch_mb_per_s",
    "cache_hits": "system/cache_hits",
    "peak_memory_gb": "system/peak_memory_gb",
}
RESULT_METRICS = {  # key in result.json -> name
    "top1": "val/top1",
    "top5": "val/top5",
    "calibration_error": "val/calibration_error",
    "minutes": "system/minutes",
}
RESULT_TAGS = {  # key in result.json -> tag: a number that is the same at every step would be an empty chart
    "params": "params",
    "multiply_adds": "multiply_adds",
    "resolution": "resolution",
    "classes": "classes",
    "minival_top1": "minival_top1",
    "steps": "steps",
    "n_val": "val_n",
    "n_minival": "minival_n",
    "world_size": "world_size",
}


def split_result(result: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Returns the metrics and the tags that a job's result adds to its run, its description among them."""
    scored = result if result.get("n_minival") else {k: v for k, v in result.items() if k != "minival_top1"}
    metrics = {name: float(scored[key]) for key, name in RESULT_METRICS.items() if scored.get(key) is not None}
    tags = {name: _format(scored[key]) for key, name in RESULT_TAGS.items() if key in scored}
    if result.get("n_val"):
        error = interval_95(result["top1"], result["n_val"])
        tags[DESCRIPTION] = f"{result['top1']:.2f} % top-1 on {result['n_val']:,} val images (± {error:.2f}, 95 %)"
    return metrics, tags


def _format(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
