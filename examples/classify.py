"""Classifies an image file with a registered model: ``python examples/classify.py efficientnet-b0@champion IMAGE``.

Run ``eval "$(effnet env)"`` first, which connects the shell to the services.
"""

from __future__ import annotations

import sys
from pathlib import Path

from infra.tracking import registry
from models.experiments.classify import Classifier


def classify(ref: str, image: Path, folder: Path) -> list[tuple[str, float]]:
    """The five most probable classes of an image with their probabilities; the weights are stored in ``folder``."""
    return Classifier(*registry.fetch_weights(ref, folder)).classify(image.read_bytes(), 5)


if __name__ == "__main__":
    for name, probability in classify(sys.argv[1], Path(sys.argv[2]), Path("runs/weights") / sys.argv[1]):
        print(f"{probability:6.1%}  {name}")
