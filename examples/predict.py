"""Classifies image files by MLflow alone: ``python examples/predict.py efficientnet-b0@champion IMAGE ...``.

Needs no code of effnet, only mlflow, torch, pandas and pillow. With the embedded services run ``eval "$(effnet env)"``
first, which connects the shell to them; elsewhere set MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd


def predict(ref: str, images: Sequence[Path]) -> pd.DataFrame:
    """The most probable class of each image, with its probability and the logits of all classes."""
    model = mlflow.pyfunc.load_model(f"models:/{ref}")
    return model.predict(pd.DataFrame({"image": [path.read_bytes() for path in images]}))


if __name__ == "__main__":
    paths = [Path(name) for name in sys.argv[2:]]
    for path, answer in zip(paths, predict(sys.argv[1], paths).itertuples(), strict=True):
        print(f"{path}: {answer[1]}, {answer[2]:.1%}")
