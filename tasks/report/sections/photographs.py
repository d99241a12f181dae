"""Photographs: what public ImageNet networks see in them."""

from __future__ import annotations

from typing import Any

from models.results import PhotographsResult, Summary
from tasks.report.sections.maps import png


def facts(part: PhotographsResult, _summary: Summary) -> dict[str, Any]:
    """The networks, and a row for each photograph with a cell for each network."""
    maps = {(cell.photograph, cell.network): cell for cell in part.maps}
    rows = [(image, [maps.get((image.name, network.name)) for network in part.networks]) for image in part.photographs]
    return {"networks": part.networks, "rows": rows, "png": png, "listed": _listed, "url": part.mlflow_url}


def _listed(classes: tuple[str, ...], probabilities: tuple[float, ...]) -> list[tuple[str, float]]:
    """Classes with their probabilities; one without the other is not shown."""
    return list(zip(classes, probabilities, strict=False))
