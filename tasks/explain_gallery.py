"""Output of the gallery of class activation maps: the report part, and image files for MLflow."""

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

REPORT_PX = 160  # image side in the report; the files have the resolution of their network
REPORT_BYTES = 2_800_000  # limit of all report images together, as base64


@dataclass(frozen=True)
class GalleryNetwork:
    """A network with its weights."""

    name: str  # display name, unique
    dimension: str  # baseline | depth | width | resolution | compound
    model: schema.Model
    weights_uri: str
    weights_sha256: str
    top1: float
    n_val: int
    mlflow_url: str
    reused: bool  # an earlier run trained or evaluated it


def facts(
    ids: list[int],
    labels: list[str],
    trained: list[GalleryNetwork],
    drawn: list[GalleryImages],
    classes: Sequence[str],
    limit: int = REPORT_BYTES,
) -> dict[str, Any]:
    """The report part, with images scaled down until all of them fit into ``limit``.

    Args:
        ids: Ids of the images.
        labels: Class name of each image.
        trained: The networks.
        drawn: The maps of each network.
        classes: Names of all classes of the data set.
        limit: Limit of all images together, in bytes of base64.
    """
    side_px = REPORT_PX
    while True:
        part = _facts(ids, labels, trained, drawn, classes, side_px)
        if side_px <= 1 or sum(len(entry["png"]) for entry in (*part["images"], *part["maps"])) <= limit:
            return part
        side_px = side_px * 4 // 5


def _facts(
    ids: list[int],
    labels: list[str],
    trained: list[GalleryNetwork],
    drawn: list[GalleryImages],
    classes: Sequence[str],
    side_px: int,
) -> dict[str, Any]:
    from models.experiments.gallery import png

    def picture(pixels: Any) -> str:
        return base64.b64encode(png(pixels, side_px)).decode()

    images = [
        {"id": number, "label": label, "png": picture(pixels)}
        for number, label, pixels in zip(ids, labels, drawn[0].inputs, strict=True)
    ]
    networks: list[dict[str, Any]] = []
    maps: list[dict[str, Any]] = []
    for network, gallery in zip(trained, drawn, strict=True):
        networks.append(
            {
                "name": network.name,
                "dimension": network.dimension,
                "network": network.model.name,
                "method": gallery.method,
                "params": gallery.params,
                "multiply_adds": gallery.multiply_adds,
                "resolution": gallery.inputs.shape[1],
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
                    "prediction": classes[gallery.predictions[i]],
                    "probability": gallery.probabilities[i],
                    "png": picture(gallery.overlays[i]),
                }
            )
    return {"images": images, "models": networks, "maps": maps}


def save(folder: Path, ids: list[int], trained: list[GalleryNetwork], drawn: list[GalleryImages]) -> list[Path]:
    """Writes each map at its network's resolution, and one sheet of all maps: images as rows, networks as columns."""
    from models.experiments.gallery import png, sheet

    columns = [drawn[0].inputs, *(images.overlays for images in drawn)]
    pictures = {"gallery.png": png(sheet(columns, max(REPORT_PX, drawn[0].inputs.shape[1])))}
    for network, gallery in zip(trained, drawn, strict=True):
        stem = re.sub(r"[^A-Za-z0-9.]+", "-", network.name)
        for i, number in enumerate(ids):
            pictures[f"{number}-{stem}.png"] = png(gallery.overlays[i])
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in pictures]
