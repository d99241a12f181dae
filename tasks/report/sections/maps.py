"""Table 7 and Figure 7: networks scaled by one method each, and their class activation maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.experiments import scaling_study
from models.experiments.scaling_study import PaperScalingRow
from models.results import GalleryModel, GalleryResult, Summary
from models.statistics import standard_error

PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]*={0,2}")  # base64 of a PNG's first bytes, then base64 only


@dataclass(frozen=True)
class MethodRow:
    """A scaling method: our network, and the row of Table 7."""

    method: str
    ours: GalleryModel | None
    error: float | None  # standard error of our top-1, in points
    paper: PaperScalingRow | None


def facts(part: GalleryResult, _summary: Summary) -> dict[str, Any]:
    """Table 7 with ours in it, and the gallery: a row for each image, a cell for each network."""
    maps = {(entry.image, entry.model): entry for entry in part.maps}
    gallery = [(image, [maps.get((image.id, model.name)) for model in part.models]) for image in part.images]
    return {"table7": _table7(part.models), "models": part.models, "gallery": gallery, "png": png}


def _table7(models: Sequence[GalleryModel]) -> list[MethodRow]:
    """Returns the printed rows, each with the measured row of the same method, then the other measured networks."""
    rows = []
    rest = [*models]
    for printed in scaling_study.TABLE7:
        ours = next((model for model in rest if model.dimension == printed.method), None)
        rest = [model for model in rest if model is not ours]
        rows.append(_row(printed.method, ours, printed))
    return rows + [_row(model.dimension or model.name, model, None) for model in rest]


def _row(method: str, ours: GalleryModel | None, printed: PaperScalingRow | None) -> MethodRow:
    return MethodRow(method, ours, standard_error(ours.top1, ours.n_val) if ours else None, printed)


def png(text: str) -> str | None:
    """The base64 of a PNG, or None if it is anything else."""
    return text if PNG.fullmatch(text) else None
