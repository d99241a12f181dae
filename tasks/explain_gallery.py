"""What the gallery of class activation maps leaves: the report's part, and picture files for MLflow."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import schema

if TYPE_CHECKING:
    from models.experiments.gallery import GalleryImages

REPORT_PX = 160  # side of a picture in the report; the files have the networks' own size
REPORT_BYTES = 2_800_000  # most that all pictures of the report take there, as base64


@dataclass(frozen=True)
class GalleryNetwork:
    """A network with its weights."""

    name: str  # as people see it; no two are alike
    dimension: str  # baseline | depth | width | resolution | compound
    model: schema.Model
    weights_uri: str
    weights_sha256: str
    top1: float
    n_val: int
    mlflow_url: str
    found: bool  # it was trained, or evaluated, before


def facts(
    ids: list[int],
    labels: list[str],
    trained: list[GalleryNetwork],
    drawn: list[GalleryImages],
    classes: Sequence[str],
    limit: int = REPORT_BYTES,
) -> dict[str, Any]:
    """The part of the report, its pictures as small as ``limit`` asks.

    Args:
        ids: of the images.
        labels: their classes' names.
        trained: the networks.
        drawn: their maps.
        classes: names of all classes of the data set.
        limit: bytes of all pictures together, as base64.
    """
    side = REPORT_PX
    while True:
        found = _facts(ids, labels, trained, drawn, classes, side)
        if side <= 1 or sum(len(each["png"]) for each in (*found["images"], *found["maps"])) <= limit:
            return found
        side = side * 4 // 5


def _facts(
    ids: list[int],
    labels: list[str],
    trained: list[GalleryNetwork],
    drawn: list[GalleryImages],
    classes: Sequence[str],
    side: int,
) -> dict[str, Any]:
    from models.experiments.gallery import png

    def picture(pixels: Any) -> str:
        return base64.b64encode(png(pixels, side)).decode()

    images = [
        {"id": number, "label": label, "png": picture(pixels)}
        for number, label, pixels in zip(ids, labels, drawn[0].inputs, strict=True)
    ]
    networks: list[dict[str, Any]] = []
    maps: list[dict[str, Any]] = []
    for network, found in zip(trained, drawn, strict=True):
        networks.append(
            {
                "name": network.name,
                "dimension": network.dimension,
                "network": network.model.name,
                "method": found.method,
                "params": found.params,
                "multiply_adds": found.multiply_adds,
                "resolution": found.inputs.shape[1],
                "top1": network.top1,
                "n_val": network.n_val,
                "mlflow_url": network.mlflow_url,
            }
        )
        for i, number in enumerate(ids):
            maps.append(
                {
                    "image": number,
                    "model": network.name,
                    "prediction": classes[found.predictions[i]],
                    "probability": found.probabilities[i],
                    "png": picture(found.overlays[i]),
                }
            )
    return {"images": images, "models": networks, "maps": maps}


def save(folder: Path, ids: list[int], trained: list[GalleryNetwork], drawn: list[GalleryImages]) -> list[Path]:
    """Writes every map at its network's own size, and one sheet of all: images by rows, networks by columns."""
    from models.experiments.gallery import png, sheet

    columns = [drawn[0].inputs, *(each.overlays for each in drawn)]
    pictures = {"gallery.png": png(sheet(columns, max(REPORT_PX, drawn[0].inputs.shape[1])))}
    for network, found in zip(trained, drawn, strict=True):
        word = re.sub(r"[^A-Za-z0-9.]+", "-", network.name)
        for i, number in enumerate(ids):
            pictures[f"{number}-{word}.png"] = png(found.overlays[i])
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in pictures]
