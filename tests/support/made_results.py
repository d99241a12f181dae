"""Results of jobs that never ran, for tests of what is made of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from models.results import TrainResult

TRAINED = TrainResult(
    job="j",
    job_uri="file:///j",
    model="efficientnet_b0",
    params=7,
    multiply_adds=8,
    resolution=24,
    classes=10,
    epochs=1,
    steps=2,
    top1=1.0,
    top5=2.0,
    n_val=9,
    minival_top1=50.0,
    n_minival=100,
    minutes=0.1,
    images_per_s=3.0,
    weights_uri="file:///w",
    weights_sha256="0",
    mlflow_run="run",
)


def trained(**changes: Any) -> TrainResult:
    """A finished training, with the fields that the test is about."""
    return dataclasses.replace(TRAINED, **changes)
